//! AppCore's core, which needs no server: time and what happens are handed to it.

mod documents;
mod journeys;
mod keeping;
mod manifest;
mod model;
mod properties;
