//! `mail_log` and `dns_name`: what passed, and what clients are called.

use super::Mariadb;
use super::layout::{ascii, literal};
use super::row::list;
use super::schema::{MAIL_LOG, NAMES};
use crate::StoreError;
use crate::store::Passed;

/// Mail that one statement writes down.
const AT_ONCE: usize = 500;

impl Mariadb {
    /// Writes down what passed, and the names of those who sent it.
    pub(crate) async fn log(&self, passed: &[Passed]) -> Result<(), StoreError> {
        let what = "write to the mail log";
        for some in passed.chunks(AT_ONCE) {
            let insert = format!(
                "INSERT INTO {MAIL_LOG} (relay_ip, relay_name, dns_mismatch, mail_from, rcpt_to, \
                 rcpt_host, create_time) VALUES {}",
                list(some.iter().map(row))
            );
            let names: Vec<_> = some.iter().filter_map(name).collect();
            let names = (!names.is_empty()).then(|| {
                format!(
                    "INSERT INTO {NAMES} (relay_ip, relay_name, last_update) VALUES {} \
                     ON DUPLICATE KEY UPDATE relay_name = VALUES(relay_name), \
                     last_update = VALUES(last_update)",
                    list(names)
                )
            });
            let (insert, names) = (&insert, &names);
            self.sessions
                .run(|mut session| async move {
                    session.change(what, insert).await?;
                    if let Some(names) = names {
                        session.change(what, names).await?;
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }
}

/// A text that a column of so many characters holds, whatever its character set is.
fn cut(text: &str, characters: usize) -> String {
    literal(&ascii(text).chars().take(characters).collect::<String>())
}

fn row(passed: &Passed) -> String {
    let Passed { peer, name, is_mismatch, sender, recipient } = passed;
    let host = recipient.rsplit_once('@').map_or("", |(_, host)| host);
    format!(
        "({}, {}, {}, {}, {}, {}, NOW())",
        cut(&peer.to_string(), 100),
        name.as_ref().map_or("NULL".into(), |name| cut(name, 255)),
        u8::from(*is_mismatch),
        cut(sender, 255),
        cut(recipient, 255),
        cut(host, 80),
    )
}

/// A name with its letters in reverse, so that those of one domain stand together.
fn name(passed: &Passed) -> Option<String> {
    let reversed: String = ascii(passed.name.as_ref()?).chars().rev().collect();
    Some(format!("({}, {}, NOW())", cut(&passed.peer.to_string(), 100), cut(&reversed, 255)))
}
