//! greylist allow, block, list --manual, forget --manual: what administrators rule by hand.

use std::time::Duration;

use clap::Args;
use lamppost_console::Client;
use lamppost_greylist::Whom;
use lamppost_roles::{ManualRow, ManualWhom, Timestamp};

use super::Forgotten;
use crate::command::{out, unanswered};
use crate::exit::{Code, Failure};

const PATH: &str = "/v1/greylist/manual";

/// For whom, and for how long.
#[derive(Args, Debug)]
pub(crate) struct Ruled {
    /// Clients by an address, the beginning of one or a network (`192.0.2.1`, `192.0.2`, `192.0.2.0/24`,
    /// `2001:db8::/32`), or recipients by an address or a domain with all below it
    #[arg(required = true, value_name = "WHOM")]
    whom: Vec<String>,
    /// For how long, such as 36d [default: for ever]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let read = lamppost_config::parse_duration(text);
    read.ok_or_else(|| "write a number and a unit, such as 10m, 4h or 36d".into())
}

impl Ruled {
    pub(crate) async fn write(self, client: &Client, allows: bool) -> Result<(), Failure> {
        let until = self.lasts.map(|lasts| {
            let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
            Timestamp(out::now_ms().saturating_add(lasts))
        });
        let rows = read(&self.whom)?.into_iter().map(|whom| ManualRow { whom, allows, until });
        let rows: Vec<_> = rows.collect();
        let all: Vec<ManualRow> =
            client.post(PATH, &rows).await.map_err(|error| unanswered(&error))?;
        if self.json {
            return out::json(&rows);
        }
        let (count, total) = (rows.len() as u64, all.len() as u64);
        out::print(&format!(
            "{} written; there {} now.\n",
            out::count(count, "row"),
            if total == 1 { "is 1".into() } else { format!("are {total}") }
        ))
    }
}

pub(crate) async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let rows: Vec<ManualRow> = client.get(PATH).await.map_err(|error| unanswered(&error))?;
    if json {
        return out::json(&rows);
    }
    if rows.is_empty() {
        return out::print("Nothing is ruled by hand.\n");
    }
    let rows: Vec<_> = rows.iter().map(row).collect();
    out::print(&out::table(["FOR", "WHOM", "MAIL", "EXPIRES IN"], &rows))
}

fn row(row: &ManualRow) -> [String; 4] {
    let (kind, text) = match &row.whom {
        ManualWhom::Relay(text) => ("client", text),
        ManualWhom::Recipient(text) => ("recipient", text),
    };
    let left = row.until.map(|Timestamp(until)| until.saturating_sub(out::now_ms()));
    [
        kind.to_owned(),
        text.clone(),
        if row.allows { "passes" } else { "is deferred" }.to_owned(),
        left.map_or("never".into(), |left| out::age(Duration::from_millis(left))),
    ]
}

pub(crate) async fn forget(client: &Client, whom: &[String]) -> Result<(), Failure> {
    let path = format!("{PATH}/forget");
    let done = client.post::<Forgotten>(&path, &read(whom)?).await;
    let Forgotten { forgotten } = done.map_err(|error| unanswered(&error))?;
    out::print(&format!("{} forgotten.\n", out::count(forgotten, "manual row")))
}

fn read(whom: &[String]) -> Result<Vec<ManualWhom>, Failure> {
    let mut all = Vec::new();
    for text in whom {
        let rows = Whom::read(text)
            .map_err(|wrong| Failure::new(Code::Usage, wrong.what).cure(wrong.cure))?;
        all.extend(rows.into_iter().map(|whom| match whom {
            Whom::Relay(text) => ManualWhom::Relay(text),
            Whom::Recipient(text) => ManualWhom::Recipient(text),
        }));
    }
    Ok(all)
}
