//! Newtypes for every name, number and token, so that no two bare values stand side by side.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name; the configuration has checked its spelling.
            pub fn new(name: impl AsRef<str>) -> Self {
                Self(Arc::from(name.as_ref()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}

name! {
    /// The configured name of a source, such as `orders` or `s3.photos`.
    SourceName
}
name! {
    /// The name of a function.
    FunctionName
}
name! {
    /// The identity of a binding, `<target>:<source>` or `<target>:<name>`.
    BindingName
}
name! {
    /// The identity of a replay, such as `r-17` or a name the operator chose.
    ReplayId
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The number of a lane, from 1.
    Lane(u16)
}
number! {
    /// The place of an event in its lane, from 1; 0 means "before the first".
    Seq(u64)
}
number! {
    /// The ledger's number of a binding; never reused.
    BindingId(u32)
}
number! {
    /// The fencing token of a lane's owner; grows by one with every change of owner.
    Epoch(u32)
}

impl Seq {
    /// The place after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The identity of one running controller process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(transparent)]
pub struct ControllerId(pub Uuid);

/// Where an event lies: `<lane>-<seq>`, dense, monotonic within the lane, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The lane.
    pub lane: Lane,
    /// The place in the lane.
    pub seq: Seq,
}

impl Address {
    /// Builds an address from its two numbers.
    pub const fn new(lane: Lane, seq: Seq) -> Self {
        Self { lane, seq }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.lane, self.seq))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no address: write lane and number, such as 1-42");
        let (lane, seq) = text.split_once('-').ok_or_else(bad)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(lane) || !digits(seq) {
            return Err(bad());
        }
        Ok(Self::new(Lane(lane.parse().map_err(|_| bad())?), Seq(seq.parse().map_err(|_| bad())?)))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_written() {
        let address = Address::new(Lane(3), Seq(104_233));
        assert_eq!(address.to_string(), "3-104233");
        assert_eq!("3-104233".parse::<Address>(), Ok(address));
        for bad in ["", "3", "3-", "-4", "a-b", "3--4", "99999999-1", "+1-2", "1-2-3"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
