//! Applications that are shared, written and read as if they were not.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serializer};

use super::App;

pub fn serialize<S: Serializer>(apps: &BTreeMap<String, Arc<App>>, into: S) -> Result<S::Ok, S::Error> {
    into.collect_map(apps.iter().map(|(name, app)| (name, app.as_ref())))
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Arc<App>>, D::Error> {
    let apps = BTreeMap::<String, App>::deserialize(from)?;
    Ok(apps.into_iter().map(|(name, app)| (name, Arc::new(app))).collect())
}
