//! Functions that are destinations: nothing runs, the event itself goes out to a broker.
//!
//! This room knows no broker: whoever sets the pool up brings an [`Opener`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::brokers::Destination;
use bellwire_schemas::outlet::{Outlet, OutletError};
use bellwire_schemas::{ErrorInfo, FailureClass};
use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::pool::function::failed;
use crate::{Answer, Invocation, InvocationResult};

/// The failure of a message that its destination never takes: trying again cannot mend it.
pub const DESTINATION_REFUSED: &str = "Destination.Refused";
/// The failure of a message whose destination is away or gave no answer in time: no fault of the message.
pub const DESTINATION_UNAVAILABLE: &str = "Destination.Unavailable";

type Open = dyn Fn(&Destination) -> Result<Arc<dyn Outlet>, String> + Send + Sync;

/// Opens destinations; the default has none.
#[derive(Clone)]
pub struct Opener(Arc<Open>);

impl Opener {
    /// Opens destinations like this. Called with each new or changed one; must reach nothing yet.
    pub fn new(
        open: impl Fn(&Destination) -> Result<Arc<dyn Outlet>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }
}

impl Default for Opener {
    fn default() -> Self {
        Self::new(|destination| Err(format!("nothing here sends to `{}`", destination.word())))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// One destination that is open.
pub struct Post {
    /// What it was opened for, to tell a change: passwords count here and not in a version.
    pub destination: Destination,
    outlet: Arc<dyn Outlet>,
    timeout: Duration,
}

impl Post {
    /// Opens a destination.
    ///
    /// # Errors
    /// When its settings cannot be used.
    pub fn open(opener: &Opener, destination: &Destination, timeout: Duration) -> Result<Self, ErrorInfo> {
        let outlet = (opener.0)(destination).map_err(|what| {
            ErrorInfo::platform(FailureClass::CannotStart, "Destination.InvalidSettings", what)
        })?;
        Ok(Self { destination: destination.clone(), outlet, timeout })
    }

    /// Sends what an invocation brings; the answer says where it went.
    pub async fn send(&self, invocation: &Invocation) -> InvocationResult {
        let Some(outgoing) = &invocation.outgoing else {
            let message = "a destination takes what bindings send to it, and nothing else";
            return failed(ErrorInfo::platform(FailureClass::Function, DESTINATION_REFUSED, message));
        };
        let begun = Instant::now();
        // Those that are away use up no attempt: the destination is left alone for a while and probed.
        let unavailable =
            |what: String| ErrorInfo::platform(FailureClass::CannotStart, DESTINATION_UNAVAILABLE, what);
        let answer = match timeout(self.timeout, self.outlet.send(outgoing)).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(OutletError::Refused(what))) => {
                Err(ErrorInfo::platform(FailureClass::Function, DESTINATION_REFUSED, what))
            }
            Ok(Err(OutletError::Unavailable(what))) => Err(unavailable(what)),
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                Err(unavailable(format!("it did not confirm the message within {seconds:.1} s")))
            }
        };
        let logs = answer.iter().map(|place| format!("sent to {place}")).collect();
        let answer = answer.map(|place| Answer { payload: Bytes::from(place), ..Answer::default() });
        InvocationResult { duration: begun.elapsed(), logs, answer, ..failed(unavailable(String::new())) }
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Post({})", self.destination.word())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bellwire_schemas::brokers::SqsQueue;
    use bellwire_schemas::outlet::Outgoing;
    use bellwire_schemas::{Event, FunctionName};

    use super::*;
    use crate::Consent;

    /// Answers as told, in order; then hangs.
    struct Told(Mutex<Vec<Result<String, OutletError>>>);

    #[async_trait]
    impl Outlet for Told {
        async fn send(&self, _: &Outgoing) -> Result<String, OutletError> {
            let next = self.0.lock().unwrap().pop();
            match next {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    fn destination() -> Destination {
        Destination::Sqs(SqsQueue { queue: "q".into(), endpoint: None, region: None })
    }

    fn invocation(outgoing: Option<Outgoing>) -> Invocation {
        Invocation {
            function: FunctionName::new("destination.audit"),
            request_id: "1".into(),
            idempotency_key: "1".into(),
            payload: Bytes::new(),
            content_type: String::new(),
            headers: Vec::new(),
            traceparent: None,
            outgoing,
            consent: Consent::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_of_the_outlet_has_its_failure_and_none_takes_for_ever() {
        let told = Arc::new(Told(Mutex::new(vec![
            Err(OutletError::Refused("too large".into())),
            Err(OutletError::Unavailable("refused the connection".into())),
            Ok("audit/3@17".into()),
        ])));
        let opener = Opener::new(move |_| Ok(Arc::clone(&told) as _));
        let post = Post::open(&opener, &destination(), Duration::from_secs(30)).unwrap();
        let call = invocation(Some(Outgoing { event: Arc::new(Event::default()), key: None }));
        let sent = post.send(&call).await;
        assert_eq!(sent.answer.unwrap().payload, "audit/3@17");
        assert_eq!(sent.logs, ["sent to audit/3@17"]);
        let mut failures = Vec::new();
        for _ in 0..3 {
            let error = post.send(&call).await.answer.unwrap_err();
            failures.push((error.kind.clone(), error.class.burns_attempt()));
        }
        let unavailable = (DESTINATION_UNAVAILABLE.to_owned(), false);
        assert_eq!(failures, [unavailable.clone(), (DESTINATION_REFUSED.into(), true), unavailable]);
        let nothing = post.send(&invocation(None)).await.answer.unwrap_err();
        assert_eq!(nothing.kind, DESTINATION_REFUSED);
        let none = Post::open(&Opener::default(), &destination(), Duration::ZERO).unwrap_err();
        assert_eq!(none.message, "nothing here sends to `sqs`");
    }
}
