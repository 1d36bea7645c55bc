//! Each statement of docs/reference/control-api.md, on the real program.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use support::{Server, Setup, free_addresses, until};

/// The document.
const DOCUMENT: &str = include_str!("../../../docs/reference/control-api.md");

/// What the program answered, with what was asked for, to hold it against the document.
struct Answer {
    status: u16,
    kind: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.kind, "application/json", "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The text of an error with this status.
    #[track_caller]
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        let body = self.json();
        assert_eq!(keys(&body), ["error"], "{body}");
        body["error"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

/// A server whose mail for elsewhere waits.
fn start() -> Server {
    let [nobody] = free_addresses();
    Server::start(&Setup { mail: format!("relay-to = \"{nobody}\"\n"), ..Setup::default() })
}

/// One request by hand, without any content type.
fn ask(server: &Server, method: &str, path: &str, body: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(server.state().join("control.sock")).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    // A program that refuses may close before all is sent.
    drop(stream.write_all(body));
    let mut answer = Vec::new();
    // The rest of a body that nobody read resets the connection behind the answer.
    drop(stream.read_to_end(&mut answer));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let body = answer[end + 4..].to_vec();
    let body = if field("transfer-encoding:").is_some() { unchunked(&body) } else { body };
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        kind: field("content-type:").unwrap_or_default().to_owned(),
        body,
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}

fn get(server: &Server, path: &str) -> Answer {
    ask(server, "GET", path, b"")
}

fn change(server: &Server, verb: &str, ids: &[&str]) -> Value {
    let body = json!({ "verb": verb, "selection": { "ids": ids } }).to_string();
    ask(server, "POST", "/v1/queue/change", body.as_bytes()).good()
}

fn import(server: &Server, sender: &str, recipient: &str) -> String {
    let body = format!(
        "{}\nSubject: x\r\n\r\nHello.\r\n",
        json!({ "sender": sender, "recipients": [recipient] })
    );
    let answer = ask(server, "POST", "/v1/queue/import", body.as_bytes()).good();
    assert_eq!(keys(&answer), ["id"]);
    answer["id"].as_str().unwrap().to_owned()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn deferred(server: &Server, id: &str) {
    let path = format!("/v1/queue/{id}");
    assert!(until(|| get(server, &path).good()["recipients"][0]["state"] == "deferred"));
}

/// The words in back quotes of a paragraph, list item or row that begins with a text.
fn words_of(begin: &str) -> BTreeSet<&'static str> {
    let at = DOCUMENT.find(begin).expect(begin);
    let end = DOCUMENT[at..].find("\n\n").map_or(DOCUMENT.len(), |end| at + end);
    DOCUMENT[at..end].split('`').skip(1).step_by(2).collect()
}

/// The keys of a value are those that the document names there.
#[track_caller]
fn is_documented(value: &Value, begin: &str) {
    let known = words_of(begin);
    for key in keys(value) {
        assert!(known.contains(key), "`{key}` is not in the document's `{begin}`: {value}");
    }
}

#[test]
fn each_endpoint_of_the_document_is_there_and_no_other() {
    let server = start();
    let id = import(&server, "s@one.test", "r@far.test");
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let requests: Vec<_> = rows.filter(|row| row.contains(" /v1/")).collect();
    assert_eq!(requests.len(), 21, "{requests:?}");
    for request in requests {
        let (method, path) = request.split_once(' ').unwrap();
        let path = path.split('?').next().unwrap().replace("ID", &id);
        let control = server.role("control");
        let answer = ask(&server, method, &path, b"");
        assert!(!matches!(answer.status, 404 | 405), "{request}: {}", answer.status);
        if path == "/v1/upgrade" {
            // Whoever comes in between may have to come again.
            assert!(until(|| server.role("control") != control));
        }
        let told = ask(&server, "DELETE", &path, b"").error(405);
        assert_eq!(told, format!("{path} does not take DELETE"));
    }
    assert_eq!(get(&server, "/v1/nothing").error(404), "there is no /v1/nothing");
    assert_eq!(get(&server, "/").error(404), "there is no /");
}

#[test]
fn failures_are_json_with_the_status_that_the_document_names() {
    let server = start();
    let unknown = "0000000000007";
    let no_message = "no such message in the queue";
    assert_eq!(get(&server, &format!("/v1/queue/{unknown}")).error(404), no_message);
    assert_eq!(get(&server, &format!("/v1/queue/{unknown}/content")).error(404), no_message);
    assert!(get(&server, "/v1/queue/nonsense").error(400).contains("13 letters"));
    assert!(get(&server, "/v1/queue/%ff").error(400).contains("UTF-8"));
    for query in ["limit=x", "sendr=a", "state=stuck", "after=x", "before=x"] {
        get(&server, &format!("/v1/queue?{query}")).error(400);
    }
    for body in
        ["", "{", "[]", "{\"verb\":\"explode\",\"selection\":\"all\"}", "{\"verb\":\"hold\"}"]
    {
        let told = ask(&server, "POST", "/v1/queue/change", body.as_bytes()).error(400);
        assert!(told.starts_with("the body is no change: "), "{told}");
    }
    let long = vec![b' '; 5 * 1024 * 1024];
    ask(&server, "POST", "/v1/queue/change", &long).error(413);
    for body in ["", "{}", "{\"part\":\"queue\"}"] {
        let told = ask(&server, "POST", "/v1/pause", body.as_bytes()).error(400);
        assert!(told.starts_with("the body names no part: "), "{told}");
    }
    for (body, expected) in [
        ("", "there is no first line"),
        ("{}\nx\n", "the first line is wrong"),
        ("{\"sender\":\"\",\"recipients\":[]}\nx\n", "there are no recipients"),
        ("{\"sender\":\"\",\"recipients\":[\"a@b.test\"]}\n", "there is no content"),
    ] {
        let told = ask(&server, "POST", "/v1/queue/import", body.as_bytes()).error(400);
        assert!(told.contains(expected), "{told}");
    }
    assert!(get(&server, "/v1/queue").good()["messages"].as_array().unwrap().is_empty());
    std::fs::write(server.config(), "[mail]\ndomain = 1\n").unwrap();
    assert!(ask(&server, "POST", "/v1/reload", b"").error(422).contains("unknown key `domain`"));
    let named: BTreeSet<_> = [400, 404, 405, 413, 422, 500, 503, 507].into();
    let at = DOCUMENT.find("A failure is").unwrap();
    let sentence = DOCUMENT[at..].split("\n\n").next().unwrap();
    let numbers = sentence.split(|letter: char| !letter.is_ascii_digit());
    assert_eq!(numbers.filter_map(|number| number.parse().ok()).collect::<BTreeSet<u16>>(), named);
}

#[test]
fn messages_have_the_fields_and_states_of_the_document() {
    let server = start();
    let id = import(&server, "s@one.test", "r@far.test");
    deferred(&server, &id);
    let shown = get(&server, &format!("/v1/queue/{id}")).good();
    is_documented(&shown, "A message has");
    is_documented(&shown["recipients"][0], "A recipient has");
    is_documented(&shown["origin"], "An origin has");
    is_documented(&shown["recipients"][0]["last"], "A try has");
    is_documented(&shown["recipients"][0]["last"]["reason"], "A try has");
    assert!(shown["recipients"][0]["due"].is_u64() && shown["recipients"][0]["attempts"].is_u64());
    assert_eq!(shown["origin"]["session"], "import");
    let states: Vec<_> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| state "))
        .skip(2)
        .map_while(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(states, ["new", "deferred", "delivering", "delivered", "failed", "bounced", "held"]);
    for state in states {
        let found = get(&server, &format!("/v1/queue?state={state}")).good();
        let count = found["messages"].as_array().unwrap().len();
        assert_eq!(count, usize::from(state == "deferred"), "{state}");
    }
    change(&server, "hold", &[&id]);
    let held = get(&server, "/v1/queue?state=held").good();
    assert_eq!(held["messages"][0]["held"], true);
    let content = get(&server, &format!("/v1/queue/{id}/content"));
    assert_eq!((content.status, content.kind.as_str()), (200, "message/rfc822"));
    assert_eq!(content.body, b"Subject: x\n\nHello.\n");
}

#[test]
fn pages_and_filters_are_as_the_document_says() {
    let server = start();
    let ids = ["a@one.test", "b@two.test", ""].map(|sender| import(&server, sender, "r@far.test"));
    let page = get(&server, "/v1/queue?limit=2").good();
    is_documented(&page, "| `GET /v1/queue?");
    assert_eq!(page["messages"].as_array().unwrap().len(), 2);
    let next = page["next"].as_str().unwrap();
    let rest = get(&server, &format!("/v1/queue?limit=2&after={next}")).good();
    assert_eq!(rest["messages"][0]["id"], ids[2].as_str());
    let count = |query: &str| {
        let found = get(&server, &format!("/v1/queue?{query}")).good();
        found["messages"].as_array().unwrap().len()
    };
    let received =
        get(&server, &format!("/v1/queue/{}", ids[1])).good()["origin"]["received"].clone();
    let cases = [
        ("sender=a%40one.test".to_owned(), 1),
        ("sender=%40two.test".into(), 1),
        ("sender=%3C%3E".into(), 1),
        ("recipient=%40far.test".into(), 3),
        ("domain=one.test".into(), 1),
        ("before=1000".into(), 0),
        (format!("since={}", received.as_u64().unwrap() - 60_000), 3),
        ("larger=1000".into(), 0),
        ("smaller=1000".into(), 3),
    ];
    let parameters: BTreeSet<_> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| parameter "))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .collect();
    for (query, expected) in &cases {
        assert_eq!(count(query), *expected, "{query}");
    }
    let tried: BTreeSet<_> =
        cases.iter().map(|(query, _)| query.split('=').next().unwrap()).chain(["state"]).collect();
    assert_eq!(parameters, tried);
}

#[test]
fn changes_tell_what_became_of_each() {
    let server = start();
    let [a, b] = ["s@one.test", ""].map(|sender| import(&server, sender, "r@far.test"));
    deferred(&server, &a);
    deferred(&server, &b);
    let nobody = "0000000000007";
    let held = change(&server, "hold", &[&a, nobody, &a]);
    is_documented(&held, "| `POST /v1/queue/change`");
    let expected = json!({ "changed": 1, "held": 0, "unknown": [nobody], "unchanged": [] });
    assert_eq!(held, expected);
    let again = change(&server, "hold", &[&a]);
    assert_eq!(again["unchanged"], json!([{ "id": a, "why": "so-before" }]));
    assert_eq!(change(&server, "retry", &[&a])["held"], 1);
    assert_eq!(
        change(&server, "return", &[&b])["unchanged"],
        json!([{ "id": b, "why": "no-sender" }])
    );
    assert_eq!(change(&server, "release", &[&a])["changed"], 1);
    let words = words_of("| why |");
    assert_eq!(words, ["so-before", "delivering", "settled", "no-sender"].into());
    let all = json!({ "verb": "delete", "selection": "all" }).to_string();
    let deleted = ask(&server, "POST", "/v1/queue/change", all.as_bytes()).good();
    assert_eq!(deleted, json!({ "changed": 2, "held": 0, "unknown": [], "unchanged": [] }));
    let events = || get(&server, &format!("/v1/log/{a}")).good();
    assert!(until(|| events()
        .as_array()
        .unwrap()
        .iter()
        .any(|one| one["message"] == "message deleted")));
    for event in events().as_array().unwrap() {
        for name in ["at", "level", "message"] {
            assert!(!event[name].is_null(), "{event}");
        }
    }
    assert_eq!(get(&server, "/v1/log/nothing").good(), json!([]));
}

#[test]
fn the_status_and_a_reload_are_as_the_document_says() {
    let server = start();
    let status = get(&server, "/v1/status").good();
    is_documented(&status, "| `GET /v1/status`");
    is_documented(&status["host"], "`host` has");
    is_documented(&status["queue"], "`queue` has");
    is_documented(&status["host"]["listeners"][0], "`host` has");
    is_documented(&status["host"]["blocked"], "`host` has");
    for role in status["host"]["roles"].as_array().unwrap() {
        is_documented(role, "`host` has");
        is_documented(&role["force"], "`host` has");
    }
    let words = |name: &str| {
        let listeners = status["host"]["listeners"].as_array().unwrap();
        listeners.iter().map(|one| one[name].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(words("kind"), ["mx", "submission", "submission", "local"]);
    assert_eq!(words("tls"), ["starttls", "starttls", "implicit", "off"]);
    assert_eq!(status["host"]["phase"], "at-work");
    let done = ask(&server, "POST", "/v1/reload", b"").good();
    assert_eq!(keys(&done), ["done", "warnings"]);
    let text = std::fs::read_to_string(server.config()).unwrap();
    let text = text
        .replace("[mail.limits]\n", "[mail.limits]\nerrors-max = 7\ncommand-timeout = \"9s\"\n");
    std::fs::write(server.config(), text).unwrap();
    let done = ask(&server, "POST", "/v1/reload", b"").good();
    assert!(done["done"].as_str().unwrap().contains("changed in [mail.limits]"), "{done}");
    let warnings = done["warnings"].as_array().unwrap();
    let slow = warnings.iter().find(|one| one["what"].as_str().unwrap().contains("9s cuts off"));
    let slow = slow.expect("a warning of the timeout");
    is_documented(slow, "A warning has");
    assert!(slow["line"].is_u64() && slow["column"].is_u64() && slow["cure"].is_string());
    let done = ask(&server, "POST", "/v1/upgrade", b"").good();
    assert_eq!(keys(&done), ["done"]);
}

#[test]
fn a_snapshot_is_as_the_document_says() {
    let server = start();
    import(&server, "s@one.test", "r@far.test");
    let answer = get(&server, "/v1/queue/snapshot");
    assert_eq!((answer.status, answer.kind.as_str()), (200, "application/octet-stream"));
    let end = answer.body.iter().position(|&byte| byte == b'\n').unwrap();
    let head: Value = serde_json::from_slice(&answer.body[..end]).unwrap();
    is_documented(&head, "| `GET /v1/queue/snapshot`");
    is_documented(&head["files"][0], "`files` of the first line");
    assert_eq!(head["messages"], 1);
    let files = head["files"].as_array().unwrap();
    let length: u64 = files.iter().map(|file| file["length"].as_u64().unwrap()).sum();
    assert_eq!(length, (answer.body.len() - end - 1) as u64);
}
