//! Node.js handlers on the bundled bootstrap.

use bellwire_schemas::FailureClass;
use bellwire_schemas::service::Target;
use serde_json::json;

use crate::support::Stage;

async fn check(file: &str, source: &str, wanted: serde_json::Value) {
    let stage = Stage::new();
    stage.apply(&stage.node(file, source)).await;
    for _ in 0..2 {
        assert_eq!(stage.ok(r#"{"n": 2}"#).await, wanted, "{source}");
    }
}

#[tokio::test]
async fn every_style_of_handler_answers() {
    check("app.js", "exports.handler = async (event) => event.n + 1;", json!(3)).await;
    check(
        "app.cjs",
        "exports.handler = (event, context, callback) => callback(null, event.n + 2);",
        json!(4),
    )
    .await;
    check("app.mjs", "export const handler = async (event) => event.n + 3;", json!(5)).await;
    check("app.js", "exports.handler = (event, context) => { context.succeed(event.n + 4); };", json!(6))
        .await;
    check("app.js", "exports.handler = async () => {};", json!(null)).await;
    let late = "exports.handler = (e, c, cb) => { cb(null, global.x = 1); setTimeout(() => { global.x = 2; }, 20); };";
    check("app.js", late, json!(1)).await;
    let early = "exports.handler = (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false;
        setInterval(() => {}, 1000); cb(null, 7); };";
    check("app.js", early, json!(7)).await;
    let timer = "exports.handler = () => new Promise((done) => setTimeout(() => done(8), 5));";
    check("app.js", timer, json!(8)).await;
}

#[tokio::test]
async fn a_package_may_say_that_it_is_made_of_modules() {
    let stage = Stage::new();
    stage.write("package.json", r#"{"type": "module"}"#);
    stage.write("src/index.js", "import { n } from './n.js';\nexport const handler = async () => n;");
    stage.write("src/n.js", "export const n = 9;");
    stage.apply(&stage.spec(Target::Node { handler: "src/index.handler".into(), version: None })).await;
    assert_eq!(stage.ok("{}").await, 9);
}

#[tokio::test]
async fn the_context_is_as_on_lambda() {
    let source = "exports.handler = async (event, context) => [context.functionName, context.memoryLimitInMB,
        context.getRemainingTimeInMillis() > 1000, typeof context.awsRequestId, process.env._HANDLER];";
    check("app.js", source, json!(["f", "1024", true, "string", "app.handler"])).await;
}

#[tokio::test]
async fn errors_of_every_kind_are_told() {
    let stage = Stage::new();
    let source = "
exports.handler = async (event) => {
  if (event === 'throw') throw new TypeError('no');
  if (event === 'text') throw 'just text';
  if (event === 'bigint') return 1n;
  if (event === 'bytes') return Buffer.from('x');
  if (event === 'never') return new Promise(() => {});
  if (event === 'reject') { Promise.reject(new Error('lost')); return new Promise((d) => setTimeout(d, 5000)); }
  if (event === 'late') { setTimeout(() => { throw new RangeError('late'); }, 1);
    return new Promise((d) => setTimeout(d, 5000)); }
  if (event === 'exit') process.exit(5);
  return process.pid;
};";
    stage.apply(&stage.node("app.js", source)).await;
    let function = FailureClass::Function;
    let (error, result) = stage.fails("\"throw\"", function, "TypeError").await;
    assert!(error.message == "no" && error.stack.iter().any(|line| line.contains("app.js:3")), "{error:?}");
    assert!(result.logs.iter().any(|line| line.contains("TypeError: no")), "{:?}", result.logs);
    let (error, _) = stage.fails("\"text\"", function, "string").await;
    assert_eq!(error.message, "just text");
    stage.fails("\"bigint\"", function, "Runtime.MarshalError").await;
    stage.fails("\"bytes\"", function, "Runtime.MarshalError").await;
    stage.fails("not json", function, "Runtime.UnmarshalError").await;
    let (_, result) = stage.fails("\"never\"", function, "Runtime.NodeJsExit").await;
    assert_eq!(result.worker, "1");
    stage.fails("\"reject\"", function, "Runtime.UnhandledPromiseRejection").await;
    stage.fails("\"late\"", function, "RangeError").await;
    stage.fails("\"exit\"", FailureClass::Crash, "Runtime.ExitError").await;
    assert!(stage.ok("0").await.is_u64());
}

#[tokio::test]
async fn bad_starts_say_what_is_wrong() {
    let stage = Stage::new();
    let check = async |source: &str, kind: &str, words: &str| {
        stage.apply(&stage.node("app.js", source)).await;
        let (error, _) = stage.fails("{}", FailureClass::CannotStart, kind).await;
        assert!(format!("{error:?}").contains(words), "{error:?}");
    };
    check("require('not-there')", "Runtime.ImportModuleError", "not-there").await;
    check("exports.handler = (", "Runtime.UserCodeSyntaxError", "app.js").await;
    check("exports.other = 1", "Runtime.HandlerNotFound", "handler").await;
    check("throw new RangeError('early')", "RangeError", "app.js:1").await;
    check("process.exit(9)", "Runtime.ExitError", "status 9").await;
}
