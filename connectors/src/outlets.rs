//! The ways out, one line each: opens what carries results to a broker.

use std::sync::Arc;

use bellwire_schemas::brokers::Destination;
use bellwire_schemas::outlet::Outlet;

/// Opens a destination. Nothing is reached yet: the first message does that. Needs a tokio runtime.
///
/// # Errors
/// When the settings cannot work, or the program was built without this kind.
pub fn open(destination: &Destination) -> Result<Arc<dyn Outlet>, String> {
    match destination {
        #[cfg(feature = "kafka")]
        Destination::Kafka(kafka) => crate::kafka::open_outlet(kafka),
        #[cfg(feature = "rabbitmq")]
        Destination::Rabbitmq(rabbitmq) => crate::rabbitmq::open_outlet(rabbitmq),
        #[cfg(feature = "sqs")]
        Destination::Sqs(queue) => crate::sqs::open_outlet(queue),
        #[allow(unreachable_patterns, reason = "kinds whose feature is on have a line above")]
        Destination::Kafka(_) | Destination::Rabbitmq(_) | Destination::Sqs(_) => Err(format!(
            "this program was built without `{}`: build it with its default features",
            destination.word()
        )),
    }
}
