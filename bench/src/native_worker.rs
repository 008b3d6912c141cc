//! A no-op function that speaks the Lambda Runtime API over one raw socket: as little work as a worker can do, so that
//! what is measured is ours. With `NOTES` set it writes `<event id> <microseconds>` when the event arrives.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::ExitCode;

use bellwire_schemas::Clock;

/// Runs until the connection closes.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> std::io::Result<()> {
    let api = std::env::var("AWS_LAMBDA_RUNTIME_API").map_err(std::io::Error::other)?;
    let mut notes = match std::env::var_os("NOTES") {
        Some(path) => Some(File::options().append(true).create(true).open(path)?),
        None => None,
    };
    let clock = Clock::system();
    let stream = TcpStream::connect(&api)?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let next = format!("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: {api}\r\n\r\n");
    loop {
        writer.write_all(next.as_bytes())?;
        let (id, body) = read_response(&mut reader)?;
        let started = clock.now();
        if let Some(notes) = &mut notes {
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            writeln!(notes, "{} {}", event["id"].as_str().unwrap_or("?"), started.micros())?;
        }
        let answer = format!(
            "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: {api}\r\n\
             Content-Type: application/json\r\nContent-Length: 4\r\n\r\nnull"
        );
        writer.write_all(answer.as_bytes())?;
        read_response(&mut reader)?;
    }
}

/// Reads one response: the request id header, if there is one, and the body.
fn read_response(reader: &mut impl BufRead) -> std::io::Result<(String, Vec<u8>)> {
    let (mut id, mut length) = (String::new(), 0);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        } else if name.eq_ignore_ascii_case("lambda-runtime-aws-request-id") {
            id = value.trim().into();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((id, body))
}
