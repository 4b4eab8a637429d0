//! Where a value stands in a request, and the checks that name it when they refuse.

use std::fmt;
use std::ops::RangeInclusive;

/// A field that breaks a rule: its path, what it is, what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Longest name, bytes.
const NAME_BYTES: usize = 500;
/// Longest text, bytes.
const TEXT_BYTES: usize = 2000;

/// A path such as `cluster.nodes[3].memory_bytes`; written out only when something is refused.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    parent: Option<&'a Field<'a>>,
    name: &'static str,
    index: Option<usize>,
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

impl Field<'_> {
    pub const fn root(name: &'static str) -> Field<'static> {
        Field { parent: None, name, index: None }
    }

    pub const fn item_of_root(name: &'static str, index: usize) -> Field<'static> {
        Field { parent: None, name, index: Some(index) }
    }

    pub fn field(&self, name: &'static str) -> Field<'_> {
        Field { parent: Some(self), name, index: None }
    }

    pub fn item(&self, name: &'static str, index: usize) -> Field<'_> {
        Field { parent: Some(self), name, index: Some(index) }
    }

    pub fn refuse(&self, problem: impl fmt::Display) -> Invalid {
        Invalid(format!("{self}: {problem}"))
    }

    /// A message that must be there.
    pub fn given<'m, T>(&self, message: &'m Option<T>) -> Result<&'m T, Invalid> {
        message.as_ref().ok_or_else(|| self.refuse("is missing"))
    }

    /// A whole number within a range.
    pub fn whole(&self, value: impl Into<Option<i64>>, range: RangeInclusive<i64>) -> Result<u64, Invalid> {
        let value = value.into().ok_or_else(|| self.refuse("is missing, want a number"))?;
        let (low, high) = (*range.start(), *range.end());
        match value {
            value if value < low => Err(self.refuse(format_args!("is {value}, want a number from {low}"))),
            value if value > high => Err(self.refuse(format_args!("is {value}, want a number up to {high}"))),
            value => Ok(value.unsigned_abs()),
        }
    }

    /// A whole number within a range that 32 bits hold.
    pub fn whole32(&self, value: impl Into<Option<i64>>, range: RangeInclusive<i64>) -> Result<u32, Invalid> {
        let value = self.whole(value, range)?;
        u32::try_from(value)
            .map_err(|_| self.refuse(format_args!("is {value}, want a number up to {}", u32::MAX)))
    }

    /// A number within a range, so not NaN.
    pub fn number(&self, value: impl Into<Option<f64>>, range: RangeInclusive<f64>) -> Result<f64, Invalid> {
        let value = value.into().ok_or_else(|| self.refuse("is missing, want a number"))?;
        if range.contains(&value) {
            return Ok(value);
        }
        let (low, high) = (range.start(), range.end());
        Err(self.refuse(format_args!("is {value:?}, want a number from {low:?} to {high:?}")))
    }

    /// A number above zero and up to `high`.
    pub fn positive(&self, value: f64, high: f64) -> Result<f64, Invalid> {
        if value > 0.0 && value <= high {
            return Ok(value);
        }
        Err(self.refuse(format_args!("is {value:?}, want a number above 0 and up to {high:?}")))
    }

    /// How many there are of something.
    pub fn count(&self, count: usize, range: RangeInclusive<usize>) -> Result<(), Invalid> {
        if count < *range.start() {
            return Err(self.refuse(format_args!("has {count}, want at least {}", range.start())));
        }
        if count > *range.end() {
            return Err(self.refuse(format_args!("has {count}, want at most {}", range.end())));
        }
        Ok(())
    }

    /// A name.
    pub fn name(&self, value: &str) -> Result<String, Invalid> {
        match value.len() {
            0 => Err(self.refuse("is empty, want a name")),
            _ if value.contains('\0') => Err(self.refuse("has a zero byte, want a name without")),
            1..=NAME_BYTES => Ok(value.to_owned()),
            bytes => Err(self.refuse(format_args!("has {bytes} bytes, want a name of at most {NAME_BYTES}"))),
        }
    }

    /// A few sentences; may be empty.
    pub fn text(&self, value: &str) -> Result<(), Invalid> {
        if value.contains('\0') {
            return Err(self.refuse("has a zero byte, want a text without"));
        }
        if value.len() <= TEXT_BYTES {
            return Ok(());
        }
        Err(self.refuse(format_args!("has {} bytes, want at most {TEXT_BYTES}", value.len())))
    }

    /// A reference to something that is not there.
    pub fn unknown<'n>(&self, what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> Invalid {
        let shown: String = name.chars().take(60).collect();
        let near = known.map(|other| (strsim::jaro_winkler(&shown, other), other));
        match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((likeness, other)) if likeness > 0.8 => {
                self.refuse(format_args!("no {what} is called {shown:?}; did you mean {other:?}?"))
            }
            _ => self.refuse(format_args!("no {what} is called {shown:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Field;

    #[test]
    fn a_refusal_names_the_field_and_what_is_wanted() {
        let cluster = Field::root("cluster");
        let node = cluster.item("nodes", 3);
        let cases = [
            (
                node.field("memory_bytes").whole(-5, 1..=10).unwrap_err(),
                "memory_bytes: is -5, want a number from 1",
            ),
            (
                node.field("memory_bytes").whole(11, 1..=10).unwrap_err(),
                "memory_bytes: is 11, want a number up to 10",
            ),
            (
                node.field("startup_s").number(f64::NAN, 0.0..=9.0).unwrap_err(),
                "startup_s: is NaN, want a number from 0.0 to 9.0",
            ),
            (
                node.field("startup_s").number(None, 0.0..=9.0).unwrap_err(),
                "startup_s: is missing, want a number",
            ),
            (node.field("name").name("").unwrap_err(), "name: is empty, want a name"),
            (
                node.field("kind").unknown("kind", "nuk", ["tx2", "nuc"].into_iter()),
                "kind: no kind is called \"nuk\"; did you mean \"nuc\"?",
            ),
        ];
        for (refusal, message) in cases {
            assert_eq!(refusal.0, format!("cluster.nodes[3].{message}"));
        }
    }
}
