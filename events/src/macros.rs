//! The two macros that declare events, so that a name, a version and a payload stand on one line each.

/// Declares the events of one aggregate: `Variant(Payload) = ("name", version)`.
///
/// A stored variant is never edited: a new shape is a new version here, and a step in [`crate::upcast`].
macro_rules! aggregate_events {
    ($(#[$doc:meta])* $enum:ident { $($(#[$vdoc:meta])* $variant:ident($payload:ty) = ($name:literal, $version:expr),)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $enum {
            $($(#[$vdoc])* #[serde(rename = $name)] $variant($payload),)+
        }

        impl $enum {
            /// Every event of this aggregate: name, newest version, JSON Schema of its payload.
            pub fn catalogue() -> Vec<$crate::catalogue::Entry> {
                vec![$($crate::catalogue::Entry::of::<$payload>($name, $version),)+]
            }

            /// Every event of this aggregate, with its newest version.
            pub const NEWEST: &'static [(&'static str, u32)] = &[$(($name, $version),)+];

            /// The event's name, as stored: `aggregate.past_participle`.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)+ }
            }

            /// The version in which it is written now.
            pub const fn version(&self) -> u32 {
                match self { $(Self::$variant(_) => $version,)+ }
            }

            /// The newest version of the event of that name, if this aggregate has one.
            pub fn newest_version(name: &str) -> Option<u32> {
                match name { $($name => Some($version),)+ _ => None }
            }

            /// The payload, as it is stored and sent.
            pub fn payload(&self) -> serde_json::Result<Box<serde_json::value::RawValue>> {
                match self { $(Self::$variant(payload) => serde_json::value::to_raw_value(payload),)+ }
            }

            /// Reads a payload of the newest version; `None` where the name is another aggregate's.
            pub fn from_payload(name: &str, payload: &str) -> Option<serde_json::Result<Self>> {
                match name { $($name => Some(serde_json::from_str(payload).map(Self::$variant)),)+ _ => None }
            }
        }

        impl cqrs_es::DomainEvent for $enum {
            fn event_type(&self) -> String {
                self.name().to_owned()
            }

            fn event_version(&self) -> String {
                self.version().to_string()
            }
        }
    };
}

/// Joins the aggregates' events into one enum that dispatches to them.
macro_rules! union_of_events {
    ($(#[$doc:meta])* pub enum $enum:ident { $($variant:ident($events:ty),)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $enum {
            $(#[doc = concat!("An event of [`", stringify!($events), "`].")] $variant($events),)+
        }

        impl $enum {
            /// Every event: name, newest version, JSON Schema of its payload.
            pub fn catalogue() -> Vec<$crate::catalogue::Entry> {
                [$(<$events>::catalogue(),)+].into_iter().flatten().collect()
            }

            /// Every event, with its newest version.
            pub fn newest() -> impl Iterator<Item = (&'static str, u32)> {
                [$(<$events>::NEWEST,)+].into_iter().flatten().copied()
            }

            /// The event's name, as stored: `aggregate.past_participle`.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(event) => event.name(),)+ }
            }

            /// The version in which it is written now.
            pub const fn version(&self) -> u32 {
                match self { $(Self::$variant(event) => event.version(),)+ }
            }

            /// The newest version of the event of that name.
            pub fn newest_version(name: &str) -> Option<u32> {
                None$(.or_else(|| <$events>::newest_version(name)))+
            }

            /// The payload, as it is stored and sent.
            pub fn payload(&self) -> serde_json::Result<Box<serde_json::value::RawValue>> {
                match self { $(Self::$variant(event) => event.payload(),)+ }
            }

            /// Reads a payload of the newest version; `None` where nobody knows the name.
            pub fn from_payload(name: &str, payload: &str) -> Option<serde_json::Result<Self>> {
                None$(.or_else(|| <$events>::from_payload(name, payload).map(|read| read.map(Self::$variant))))+
            }
        }

        $(impl From<$events> for $enum {
            fn from(event: $events) -> Self {
                Self::$variant(event)
            }
        }

        impl TryFrom<$enum> for $events {
            /// The event, where it is another aggregate's.
            type Error = $enum;

            fn try_from(event: $enum) -> Result<Self, $enum> {
                match event {
                    $enum::$variant(event) => Ok(event),
                    other => Err(other),
                }
            }
        })+
    };
}
