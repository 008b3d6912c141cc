//! A worker in native code, run as a test of this very binary: the smallest client of the Runtime API.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Does nothing unless the pool started it.
#[test]
fn worker() {
    let Ok(mode) = std::env::var("NATIVE_WORKER") else { return };
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
    match mode.as_str() {
        "echo" => serve(&address, |client, id, body| {
            let head = format!("content-length: {}", body.len());
            client.post(&format!("invocation/{id}/response"), &head, body)
        }),
        "chunked" => serve(&address, |client, id, body| {
            let head = "transfer-encoding: chunked\r\ntrailer: Lambda-Runtime-Function-Error-Type";
            let mut text = format!("{:x}\r\n", body.len()).into_bytes();
            text.extend_from_slice(body);
            text.extend_from_slice(b"\r\n0\r\n\r\n");
            client.post(&format!("invocation/{id}/response"), head, &text)
        }),
        "midstream" => serve(&address, |client, id, body| {
            let head = "transfer-encoding: chunked\r\n\
                lambda-runtime-function-response-mode: streaming\r\n\
                trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body";
            let mut text = format!("{:x}\r\n", body.len()).into_bytes();
            text.extend_from_slice(body);
            text.extend_from_slice(b"\r\n0\r\nLambda-Runtime-Function-Error-Type: Broken\r\n");
            // {"errorMessage":"no"}
            text.extend_from_slice(
                b"Lambda-Runtime-Function-Error-Body: eyJlcnJvck1lc3NhZ2UiOiJubyJ9\r\n\r\n",
            );
            client.post(&format!("invocation/{id}/response"), head, &text)
        }),
        "truncated" => serve(&address, |client, id, _| {
            let path = format!("invocation/{id}/response");
            client.send(&path, "content-length: 100", b"only this");
            let _ = client.0.shutdown(std::net::Shutdown::Both);
            std::thread::park();
            0
        }),
        "headers" => serve(&address, |client, id, _| {
            let head = client.1.clone();
            client.post(
                &format!("invocation/{id}/response"),
                &format!("content-length: {}", head.len()),
                &head,
            )
        }),
        other => panic!("no mode {other}"),
    }
}

/// The stream, the head of the last answer, and what was read beyond it.
pub struct Client(pub TcpStream, pub Vec<u8>, Vec<u8>);

fn serve(address: &str, answer: impl Fn(&mut Client, &str, &[u8]) -> u16) {
    let mut client = Client::connect(address);
    loop {
        let (_, body) = client.get("invocation/next");
        let id = client.header("lambda-runtime-aws-request-id");
        answer(&mut client, &id, &body);
    }
}

impl Client {
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream, Vec::new(), Vec::new())
    }

    pub fn get(&mut self, path: &str) -> (u16, Vec<u8>) {
        write!(self.0, "GET /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        self.read()
    }

    pub fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> u16 {
        self.send(path, headers, body);
        self.read().0
    }

    fn send(&mut self, path: &str, headers: &str, body: &[u8]) {
        let mut text = format!("POST /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
        if body.len() < 65_536 {
            text.push_str(text_of(body));
            self.0.write_all(text.as_bytes()).unwrap();
        } else {
            self.0.write_all(text.as_bytes()).unwrap();
            self.0.write_all(body).unwrap();
        }
    }

    pub fn header(&self, name: &str) -> String {
        header_of(&self.1, name)
    }

    pub fn read(&mut self) -> (u16, Vec<u8>) {
        let mut data = std::mem::take(&mut self.2);
        let mut buffer = [0_u8; 16_384];
        let mut stream = &self.0;
        let mut more = |data: &mut Vec<u8>| match stream.read(&mut buffer) {
            Ok(count @ 1..) => data.extend_from_slice(&buffer[..count]),
            // The pool has closed: the worker's life is over.
            _ => std::process::exit(0),
        };
        let end = loop {
            if let Some(end) = data.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            more(&mut data);
        };
        let head = data[..end].to_vec();
        let status = std::str::from_utf8(&data[9..12]).unwrap().parse().unwrap();
        let length: usize = header_of(&head, "content-length").parse().unwrap_or(0);
        let mut data = data.split_off(end);
        while data.len() < length {
            more(&mut data);
        }
        (self.1, self.2) = (head, data.split_off(length));
        (status, data)
    }
}

/// Test bodies are text.
fn text_of(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

fn header_of(head: &[u8], name: &str) -> String {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).unwrap_or_default().1.to_owned()
}
