//! `events tail`: facts as they happen, resumed after a break where the last one stood.

use std::time::Duration;

use bellwire_schemas::api::{BindingStatus, List};
use bellwire_schemas::live::Fact;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::Context;
use crate::cli::client::{Client, STREAM_TIMEOUT};
use crate::cli::exit::{Answer, Exit, Failure};
use crate::cli::live::{Known, Options, Renderer};
use crate::cli::selector::{SelectorArgs, query};
use crate::cli::sse::{Message, Parser};

const TICK: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Follows until Ctrl-C. The first connection must succeed; later ones are tried again.
pub async fn run(context: &Context, selector: &SelectorArgs) -> Answer {
    let client = context.client()?;
    let pairs = query(&selector.resolve(context.out.now())?);
    let mut tail = Tail { context, renderer: renderer(context, &client).await?, last_id: None };
    let mut response = client.stream("/v1/live", &pairs, None).await?;
    loop {
        let ended = tail.follow(&client, &mut response).await;
        if let Err(failure) = ended
            && failure.exit != Exit::Unreachable
        {
            return Err(failure);
        }
        context.out.note("the stream ended: connecting again");
        let mut wait = Duration::from_millis(250);
        response = loop {
            sleep(wait).await;
            match client.stream("/v1/live", &pairs, tail.last_id.as_deref()).await {
                Ok(response) => break response,
                Err(failure) if failure.exit == Exit::Unreachable => wait = (wait * 2).min(LONGEST_WAIT),
                Err(failure) => return Err(failure),
            }
        };
    }
}

async fn renderer(context: &Context, client: &Client) -> Result<Renderer, Failure> {
    let mut options = Options::new(context.out.paint.0);
    options.iso = context.out.times().iso;
    if !context.out.json {
        let bindings = client.get::<List<BindingStatus>>("/v1/bindings", &[]).await?.value.items;
        options.bindings = bindings
            .into_iter()
            .filter(|b| b.state != "inactive")
            .map(|b| Known { binding: b.name, source: b.source, function: b.function })
            .collect();
    }
    Ok(Renderer::new(options))
}

struct Tail<'a> {
    context: &'a Context,
    renderer: Renderer,
    last_id: Option<String>,
}

impl Tail<'_> {
    /// Shows one connection's facts until it ends or falls silent.
    async fn follow(&mut self, client: &Client, response: &mut reqwest::Response) -> Result<(), Failure> {
        let mut parser = Parser::default();
        let mut heard = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                chunk = client.chunk(response) => {
                    let Some(chunk) = chunk? else { return Ok(()) };
                    heard = Instant::now();
                    for message in parser.push(&chunk)? {
                        self.message(message)?;
                    }
                }
                _ = tick.tick() => {
                    let now = self.context.out.now();
                    self.renderer.tick(now).iter().try_for_each(|line| self.context.out.line(line))?;
                }
                () = sleep_until(heard + STREAM_TIMEOUT) => return Ok(()),
            }
        }
    }

    fn message(&mut self, message: Message) -> Result<(), Failure> {
        let out = &self.context.out;
        if message.event == "missed" {
            out.note(&format!("… {} facts were too fast for this connection", message.data));
            return Ok(());
        }
        let fact = serde_json::from_str::<Fact>(&message.data);
        // The stream resumes after an accepted event: an attempt may be about a much older one.
        if let (Ok(Fact::Accepted { .. }), Some(id)) = (&fact, message.id) {
            self.last_id = Some(id);
        }
        if out.json {
            return out.line(&message.data);
        }
        // A fact of a newer controller that this version does not know is passed over.
        let Ok(fact) = fact else { return Ok(()) };
        let now = out.now();
        self.renderer.push(&fact, now).iter().try_for_each(|line| out.line(line))
    }
}
