//! What commands print.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use lamppost_console::ListenerStatus;
pub(crate) use lamppost_telemetry::count;

use crate::exit::{Code, Failure};

/// Prints a text. A reader that went away, as `head` does, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes()).map_err(|error| Failure::at(Code::Io, "cannot print", &error))
}

/// Prints bytes as they are.
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Says something on standard error; with that closed there is nobody to tell.
pub(crate) fn complain(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::at(Code::Software, "cannot print JSON", &error))?;
    print(&format!("{text}\n"))
}

/// Prints a value as JSON on one line.
pub(crate) fn json_line(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value);
    let text = text.map_err(|error| Failure::at(Code::Software, "cannot print JSON", &error))?;
    print(&format!("{text}\n"))
}

/// Lines up rows under a head; columns are two spaces apart.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[&str]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let _infallible = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&head);
    for row in rows {
        line(&row.each_ref().map(String::as_str));
    }
    text
}

/// A duration for people, by its largest unit.
pub(crate) fn age(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A time of day for people, in UTC.
pub(crate) fn time(ms: u64) -> String {
    let timestamp =
        i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| "?".into(), |timestamp| format!("{timestamp:.3}"))
}

/// The time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    use lamppost_net::Clock;
    u64::try_from(lamppost_net::SystemClock.now().as_millis()).unwrap_or(u64::MAX)
}

/// Whom a listener is for and when TLS begins there, for people; machines get the file's words.
pub(crate) fn words_of(listener: &ListenerStatus) -> (&str, &str) {
    let kind = match listener.kind.as_str() {
        "greylist" => "mail servers that ask (Postfix's policy protocol)",
        "local" => "local users (sendmail)",
        "mx" => "other servers (mx)",
        other => other,
    };
    let tls = match listener.tls.as_str() {
        "starttls" => "STARTTLS",
        other => other,
    };
    (kind, tls)
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-".contains(letter);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_lined_up() {
        let rows = [["a".into(), "1".into()], ["longer".into(), String::new()]];
        assert_eq!(table(["id", "n"], &rows), "id      n\na       1\nlonger\n");
    }

    #[test]
    fn ages_are_short() {
        for (seconds, expected) in
            [(0, "0s"), (119, "119s"), (180, "3m"), (7200, "2h"), (200_000, "2d")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }
}
