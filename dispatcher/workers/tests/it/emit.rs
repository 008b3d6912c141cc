//! Events that functions send while they run: kept with a success, forgotten with a failure, bounded.

use bellwire_schemas::FailureClass;
use bellwire_workers::Emission;
use serde_json::{Value, json};

use crate::support::Stage;

fn stage(limit: usize) -> Stage {
    let stage = Stage::with(|config| config.emitted_bytes = limit);
    stage.workers.let_emit(["topic.done".into(), "destination.audit".into()].into());
    stage
}

async fn emitted(stage: &Stage, payload: &str) -> Vec<Emission> {
    stage.call(payload).await.answer.unwrap().emitted
}

fn data(emission: &Emission) -> Value {
    serde_json::from_slice(emission.event.data.as_deref().unwrap()).unwrap()
}

const PYTHON: &str = "
def handler(event, context):
    context.emit('topic.done', {'n': 1}, type='order.priced', subject='über', key='k 1')
    context.emit('destination.audit', 'two')
    if event == 'fail': raise ValueError('after all')
    return 'done'
";

const NODE: &str = "
exports.handler = async (event, context) => {
  await Promise.all([
    context.emit('topic.done', {n: 1}, {type: 'order.priced', subject: 'über', key: 'k 1'}),
    context.emit('destination.audit', 'two'),
  ]);
  if (event === 'fail') throw new Error('after all');
  return 'done';
};
";

#[tokio::test]
async fn what_a_success_sent_comes_with_its_answer() {
    let stage = stage(1 << 20);
    for spec in [stage.python(PYTHON), stage.node("app.js", NODE)] {
        stage.apply(&spec).await;
        for _ in 0..2 {
            let mut sent = emitted(&stage, "0").await;
            sent.sort_by_key(|emission| std::cmp::Reverse(emission.to.clone()));
            let [first, second] = &sent[..] else { panic!("{sent:?}") };
            assert_eq!((first.to.as_str(), data(first)), ("topic.done", json!({"n": 1})));
            assert_eq!(first.event.kind, "order.priced");
            assert_eq!(first.event.subject.as_deref(), Some("über"));
            assert_eq!(first.event.extensions["partitionkey"], "k 1");
            assert_eq!((second.to.as_str(), data(second)), ("destination.audit", json!("two")));
            assert_eq!((second.event.kind.as_str(), second.event.id.as_str()), ("bellwire.emitted", ""));
        }
        // The failure carries nothing, and leaves nothing behind for the next answer.
        assert!(stage.call("\"fail\"").await.answer.is_err());
        assert_eq!(emitted(&stage, "0").await.len(), 2);
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_told_to_the_function() {
    let stage = stage(1_000);
    let source = "
def handler(event, context):
    if event == 'many':
        for n in range(101): context.emit('topic.done', n)
    context.emit(event, None if event != 'topic.done' else 'x' * 1001)
";
    stage.apply(&stage.python(source)).await;
    for (event, words) in [
        ("topic.nowhere", "nothing named `topic.nowhere` takes events"),
        ("topic.done", "larger than `limits.event_size`"),
        ("many", "more than 100"),
    ] {
        let (error, _) = stage.fails(&json!(event).to_string(), FailureClass::Function, "ValueError").await;
        assert!(error.message.contains(words), "{error:?}");
    }
}
