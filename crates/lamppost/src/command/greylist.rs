//! greylist list, why, allow, block, forget, stats, expire, import: of the running program; init: of its
//! database; replay: without either.

mod import;
pub(crate) mod init;
mod manual;
mod replay;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use lamppost_console::Client;
use lamppost_roles::{
    EvidenceView, GreylistFilter, GreylistListing, GreylistStats, GreylistWhy, TripletView,
};
use serde::Deserialize;

use self::replay::ReplayOptions;
use super::{client, encoded, out, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Triplets that are asked for at once.
const PAGE: u32 = 500;

/// Where the program is told to forget whose time is over.
const EXPIRE: &str = "/v1/greylist/expire";

/// Look at the greylist and change what it knows.
#[derive(Debug, Subcommand)]
pub(crate) enum GreylistCommand {
    /// List who met whom: network, sender and recipient
    List {
        #[command(flatten)]
        filters: Filters,
        /// List what is ruled by hand instead
        #[arg(long, conflicts_with_all = ["ip", "sender", "recipient"])]
        manual: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell what a message would meet now, why, and for how long; nothing is remembered of it
    Why {
        /// The client's address
        ip: IpAddr,
        /// The sender; <> for none
        from: String,
        /// The recipient
        to: String,
        /// What the client calls itself, which matters where there is no sender
        #[arg(long, default_value = "")]
        helo: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let mail of clients, or for recipients, pass without waiting
    Allow(manual::Ruled),
    /// Defer mail of clients, or for recipients, as long as this stands
    Block(manual::Ruled),
    Init(init::Init),
    /// Forget triplets, so that they must wait again; at least one filter or --all
    Forget {
        #[command(flatten)]
        filters: Filters,
        /// Forget all
        #[arg(long, conflicts_with = "manual")]
        all: bool,
        /// Forget what is ruled by hand for this client or recipient, written as for `allow`
        #[arg(long, value_name = "WHOM", conflicts_with_all = ["ip", "sender", "recipient"])]
        manual: Vec<String>,
    },
    /// Tell how many triplets wait and are known
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Decide mail of the past, and tell what came of it; nothing runs and nothing is changed
    ///
    /// FILE tells attempts in the order of their time, one JSON object a line: `t` (seconds since 1970), `ip`,
    /// `helo`, `host` (the confirmed name, or null for none), `from`, `to` (a list), `auth`, `spf` (a result of
    /// SPF), `listed`, and `data` (true when the message is sent, false when the client leaves before it,
    /// \"reject\" when it is refused). Each is answered by a line: in `to` for each recipient the `decision`
    /// after RCPT (accept, defer), the `reason` and `retry_in` in seconds, and in `data` what DATA is
    /// answered. The last line is the summary. The numbers are those of the configuration file, and of the
    /// defaults where there is none; SPF and names are never looked up.
    Replay(ReplayOptions),
    /// Forget now whose time is over; the program does so every minute
    Expire,
    /// Take over what another greylist remembers, so that nobody it knows waits once more
    #[command(subcommand)]
    Import(import::Import),
}

/// Which triplets; all that is named must hold.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filters {
    /// Those of the network that this address is in
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Those from this address or @domain; <> for no sender
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// Those to this address or @domain
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
}

#[derive(Deserialize)]
struct Forgotten {
    forgotten: u64,
}

impl GreylistCommand {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        match self {
            Self::Init(init) => return init.execute(place).await,
            Self::Replay(options) => return options.execute(place).await,
            _ => {}
        }
        let client = client(place)?;
        match self {
            // They were seen to before there was a client.
            Self::Init(_) | Self::Replay(_) => Ok(()),
            Self::Allow(ruled) => ruled.write(&client, true).await,
            Self::Block(ruled) => ruled.write(&client, false).await,
            Self::List { manual: true, json, .. } => manual::list(&client, json).await,
            Self::List { filters, json, .. } => list(&client, &filters, json).await,
            Self::Why { ip, from, to, helo, json } => {
                let [from, to, helo] = [from, to, helo].map(|text| encoded(&text));
                let path =
                    format!("/v1/greylist/why?ip={ip}&sender={from}&recipient={to}&helo={helo}");
                let why: GreylistWhy =
                    client.get(&path).await.map_err(|error| unanswered(&error))?;
                if json { out::json(&why) } else { out::print(&told(&why)) }
            }
            Self::Forget { manual, .. } if !manual.is_empty() => {
                manual::forget(&client, &manual).await
            }
            Self::Forget { filters, all, .. } => {
                let filter = filters.filter();
                if !all && filter == GreylistFilter::default() {
                    let what = "nothing says which triplets are to be forgotten";
                    return Err(Failure::new(Code::Usage, what).cure(
                        "name them by --ip, --sender or --recipient, or say --all; `lamppost \
                         greylist list` takes the same filters",
                    ));
                }
                forget(&client, "/v1/greylist/forget", &filter).await
            }
            Self::Stats { json } => {
                let stats: GreylistStats =
                    client.get("/v1/greylist/stats").await.map_err(|error| unanswered(&error))?;
                if json {
                    return out::json(&stats);
                }
                out::print(&counted(&stats))
            }
            Self::Expire => forget(&client, EXPIRE, &GreylistFilter::default()).await,
            Self::Import(import) => import.execute(&client).await,
        }
    }
}

fn counted(stats: &GreylistStats) -> String {
    let GreylistStats { waiting, known, journalled, lost, away } = stats;
    let mut text = match away {
        None => format!("{waiting} waiting, {known} known\n"),
        Some(reason) => format!("how many there are is not known: {reason}\n"),
    };
    if *journalled > 0 {
        let _infallible =
            writeln!(text, "{journalled} wait here until the shared database is there again");
    }
    if *lost > 0 {
        let _infallible = writeln!(text, "{lost} found no room here, and are lost");
    }
    text
}

impl Filters {
    fn filter(&self) -> GreylistFilter {
        let Self { ip, sender, recipient } = self.clone();
        GreylistFilter { ip, sender, recipient }
    }

    fn query(&self) -> String {
        let mut query = String::new();
        let ip = self.ip.map(|ip| ip.to_string());
        let (sender, recipient) = (self.sender.as_ref(), self.recipient.as_ref());
        for (name, value) in [("ip", ip.as_ref()), ("sender", sender), ("recipient", recipient)] {
            if let Some(value) = value {
                let _infallible = write!(query, "&{name}={}", encoded(value));
            }
        }
        query
    }
}

async fn list(client: &Client, filters: &Filters, json: bool) -> Result<(), Failure> {
    let mut after = String::new();
    let mut all: Vec<TripletView> = Vec::new();
    loop {
        let path = format!("/v1/greylist?limit={PAGE}{after}{}", filters.query());
        let page = client.get::<GreylistListing>(&path).await;
        let GreylistListing { triplets, next } = page.map_err(|error| unanswered(&error))?;
        all.extend(triplets);
        let Some(next) = next else { break };
        after = format!("&after={}", encoded(&next));
    }
    if json {
        return out::json(&all);
    }
    if all.is_empty() {
        return out::print("The greylist knows no such triplet.\n");
    }
    let rows: Vec<_> = all.iter().map(row).collect();
    out::print(&out::table(["NETWORK", "FROM", "TO", "STATE", "EXPIRES IN"], &rows))
}

fn row(triplet: &TripletView) -> [String; 5] {
    let TripletView { network, sender, recipient, passes_from, expires, passed, deferred } =
        triplet;
    let left = |until: u64| Duration::from_millis(until.saturating_sub(out::now_ms()));
    let state = match (*passed, left(passes_from.0)) {
        // What is remembered of the network as a whole.
        (passed, _) if recipient.is_empty() => format!("{passed} triplets passed"),
        _ if network == "answer" => "may answer".to_owned(),
        (0, Duration::ZERO) => format!("may pass, deferred {deferred} times"),
        (0, wait) => format!("waits {}, deferred {deferred} times", out::age(wait)),
        (passed, _) => format!("known, passed {passed} times"),
    };
    let all = || "(all)".to_owned();
    let is_whole = recipient.is_empty();
    [
        network.clone(),
        if is_whole { all() } else { format!("<{sender}>") },
        if is_whole { all() } else { format!("<{recipient}>") },
        state.replace(" 1 times", " once"),
        out::age(left(expires.0)),
    ]
}

/// The decision for people.
fn told(why: &GreylistWhy) -> String {
    let meaning = match why.reason.as_str() {
        "allowed" => "an administrator lets it pass (`greylist list --manual`)",
        "blocked" => "an administrator blocks it (`greylist list --manual`)",
        "known" => "these three have met, and mail passed",
        "waited" => "it has waited its delay",
        "off" => "greylisting is off (`enabled` in [mail.greylist])",
        "opted-out" => "it is off for this recipient ([[mail.greylist.for]])",
        "answer" => "the recipient wrote to the sender's domain (`answer-window`)",
        "promoted" => "enough mail of its network passed (`promote-after`)",
        "good-domain" => "its domain is one of `good-domains`",
        "no-delay" => "nobody waits (`delay`)",
        "new" => "these three have not met",
        "early" => "it is back before its delay is over",
        other => other,
    };
    let mut text = match why.retry_in_ms {
        None => format!("It would pass ({}): {meaning}.\n", why.reason),
        Some(wait) => {
            let seconds = wait.div_ceil(1000);
            let wait = out::count(seconds, "second");
            format!("It would be deferred ({}), for {wait}: {meaning}.\n", why.reason)
        }
    };
    if why.observes && !why.passes {
        text.push_str(
            "It passes all the same: the greylist only watches (`mode = \"observe\"`).\n",
        );
    }
    if !why.passes && why.held_until_data {
        text.push_str("It is told so in reply to DATA, not to RCPT.\n");
    }
    if let Some(triplet) = &why.triplet {
        let [network, _, _, state, expires] = row(triplet);
        let _infallible = writeln!(text, "Network {network}: {state}; forgotten in {expires}.");
    }
    if let [others @ .., _] = &why.networks[..]
        && !others.is_empty()
    {
        let _infallible = writeln!(text, "It counts as {}.", why.networks.join(", "));
    }
    if !why.passes && !why.networks.is_empty() {
        let delay = out::count(why.delay_ms.div_ceil(1000), "second");
        let by = rule(&why.rule);
        let _infallible = writeln!(text, "The delay is {delay}: {by}.{}", known(&why.evidence));
    }
    text
}

/// By what a delay is as long as it is.
fn rule(rule: &str) -> &str {
    match rule {
        "unknown" => "nothing else is known (`delay`)",
        "recipient" => "the recipient has one of its own ([[mail.greylist.for]])",
        "dynamic" => "its address is one of changing users (`suspect-delay`)",
        "dns-listed" => "lists in the DNS hold it (`suspect-delay`)",
        "demoted" => "its network misbehaved (`suspect-delay`)",
        "promoted" => "enough mail of its network passed (`good-delay`)",
        "good-domain" => "its domain is one of `good-domains` (`good-delay`)",
        other => other,
    }
}

/// What is known of the client, where anything is.
fn known(evidence: &EvidenceView) -> String {
    let mut text = String::new();
    if !matches!(&evidence.spf[..], "temperror" | "") {
        let domain =
            if evidence.spf_domain.is_empty() { "no domain" } else { &evidence.spf_domain };
        let _infallible = write!(text, " SPF of {domain}: {}.", evidence.spf);
    }
    if let Some(name) = &evidence.name {
        let _infallible = write!(text, " Its name: {name}.");
    }
    text
}

/// Has the program forget whose time is over, as a cron job: without a word when that is done.
pub(crate) async fn delete_expired(place: &Place) -> Result<(), Failure> {
    // Where the file cannot be read, the running program still can be asked.
    if let Ok(opened) = place.open() {
        let facts = crate::recipe::facts(&opened.config);
        let names = facts.iter().map(|fact| fact.variable);
        let said: Vec<_> =
            names.filter_map(|name| Some((name, std::env::var(name).ok()?))).collect();
        if let Some(difference) = lamppost_mail::recipe_differences(&facts, &said) {
            out::complain(&format!("warning: {difference}\n"));
        }
    }
    let done = client(place)?.post::<Forgotten>(EXPIRE, &GreylistFilter::default()).await;
    done.map(drop).map_err(|error| unanswered(&error))
}

async fn forget(client: &Client, path: &str, filter: &GreylistFilter) -> Result<(), Failure> {
    let done = client.post::<Forgotten>(path, filter).await;
    let Forgotten { forgotten } = done.map_err(|error| unanswered(&error))?;
    out::print(&format!("{} forgotten.\n", out::count(forgotten, "triplet")))
}
