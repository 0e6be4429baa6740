//! The macros that make an aggregate of a state and its commands, and a problem of a refusal: dispatch stays thin.

/// Declares the commands of an aggregate, and implements [`cqrs_es::Aggregate`] by them: each command is a struct
/// with `decide(self, &State, &Facts) -> Result<events, Refusal>`, and the state has `fold(&mut self, Event)`. The number is
/// its [`crate::store::Stored::SCHEMA`].
macro_rules! aggregate {
    (
        $(#[$doc:meta])*
        $state:ident($type:literal, $schema:literal) given $facts:ty => $event:ty, or $refusal:ty;
        $commands:ident { $($command:ident),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub enum $commands {
            $(#[doc = concat!("See [`", stringify!($command), "`].")] $command($command),)+
        }

        $(impl From<$command> for $commands {
            fn from(command: $command) -> Self {
                Self::$command(command)
            }
        })+

        impl $crate::store::Stored for $state {
            const SCHEMA: i32 = $schema;
        }

        impl cqrs_es::Aggregate for $state {
            const TYPE: &'static str = $type;
            type Command = $commands;
            type Event = $event;
            type Error = $crate::Refusal;
            type Services = $facts;

            async fn handle(
                &mut self,
                command: Self::Command,
                facts: &Self::Services,
                sink: &cqrs_es::event_sink::EventSink<Self>,
            ) -> Result<(), Self::Error> {
                let decided: Result<Vec<$event>, $refusal> = match command {
                    $($commands::$command(command) => {
                        command.decide(self, facts).map(|events| events.into_iter().collect())
                    })+
                };
                for event in decided? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: Self::Event) {
                self.fold(event);
            }
        }
    };
}

/// Gives every refusal of a module its status and its problem's name, and, where it is about one part of the request,
/// the pointer to it; and documents them. Exhaustive on purpose: a new refusal does not compile until it is here.
macro_rules! problems {
    ($refusal:ident: $($variant:ident => $status:ident $name:literal $(at $pointer:literal)?,)+) => {
        impl From<$refusal> for platform::problem::Problem {
            fn from(refusal: $refusal) -> Self {
                use platform::problem::{FieldError, Problem};
                let (status, name, blamed) = match &refusal {
                    $($refusal::$variant { .. } => {
                        (axum::http::StatusCode::$status, $name, None::<&str>$(.or(Some($pointer)))?)
                    })+
                };
                let errors = blamed.map(|pointer| FieldError::new(pointer, name.replace('-', "_"), &refusal));
                Problem::new(status, name, &refusal).with_errors(errors.into_iter().collect())
            }
        }

        impl $crate::refusal::Documented for $refusal {
            fn problems() -> Vec<(axum::http::StatusCode, &'static str)> {
                vec![$((axum::http::StatusCode::$status, $name),)+]
            }
        }
    };
}
