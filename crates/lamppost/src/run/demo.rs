//! What only the demo has: an account made by itself, and words of welcome.

use std::fmt::Write as _;

use lamppost_accounts::Accounts;
use lamppost_smtp::{Address, Secret};

use crate::command::out::quoted;
use crate::exit::{Code, Failure};
use crate::place::Opened;

/// The demo's mailbox.
const DEMO: &str = "demo@lamppost.test";

/// Makes the demo's account at the first start; returns its password then.
pub(super) async fn account(accounts: &Accounts) -> Result<Option<Secret>, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::at(Code::Software, "cannot make the demo's account", error)
    };
    let demo: Address = DEMO.parse().map_err(|error| failed(&error))?;
    if accounts.find(&demo).await.map_err(|error| failed(&error))?.is_some() {
        return Ok(None);
    }
    let password = lamppost_accounts::generate_password().map_err(|error| failed(&error))?;
    accounts.add(&demo, &password).await.map_err(|error| failed(&error))?;
    Ok(Some(password))
}

/// What a newcomer reads.
pub(super) fn welcome(password: Option<&Secret>, opened: &Opened) -> String {
    let Opened { state, state_is_named, .. } = opened;
    // The other commands find the program by its state.
    let option =
        if *state_is_named { format!(" --state {}", quoted(state)) } else { String::new() };
    let mut text = String::from("\nThis is the demo: loopback only, all settings built in.\n\n");
    let _infallible = match password {
        Some(password) => {
            writeln!(text, "  mailbox   {DEMO}, password {} (shown only now)", password.expose())
        }
        None => writeln!(
            text,
            "  mailbox   {DEMO} (`lamppost account passwd {DEMO}{option}` sets a new password)"
        ),
    };
    let maildir = state.join("mail/lamppost.test/demo/Maildir/new");
    let _infallible = writeln!(text, "  Maildir   {}", maildir.display());
    text.push_str(
        "\nSend a message. The first try is told to come back; the same line 10 seconds later gets through:\n\n  \
         printf 'Subject: hello\\r\\n\\r\\nHello.\\r\\n' | curl -sS smtp://127.0.0.1:2525/client.example \
         --mail-from you@example.com --mail-rcpt demo@lamppost.test --upload-file -\n  \
         swaks --server 127.0.0.1:2525 --from you@example.com --to demo@lamppost.test\n\n",
    );
    let _infallible = writeln!(
        text,
        "What became of it: `lamppost queue{option}`, `lamppost status{option}`, `lamppost log ID{option}`."
    );
    text
}
