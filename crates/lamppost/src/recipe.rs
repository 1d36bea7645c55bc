//! What qmail's recipe says of the greylist in its environment, and what the configuration says of the same.

use std::time::Duration;

use lamppost_config::{Config, GreylistDatabase, SharedDatabase, format_duration};
use lamppost_mail::RecipeFact;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

/// What each variable of the recipe is about, here.
pub(crate) fn facts(config: &Config) -> Vec<RecipeFact> {
    let greylist = &config.mail.greylist;
    let store = |variable, part: fn(&SharedDatabase) -> &String| {
        let (here, same) = match &greylist.database {
            GreylistDatabase::Shared(shared) => (part(shared).clone(), Some(part(shared).clone())),
            GreylistDatabase::State | GreylistDatabase::File(_) => {
                ("a file of its own".into(), None)
            }
        };
        RecipeFact { variable, key: "database", here, same }
    };
    let time = |variable, key, duration: Duration, unit: u64| {
        let is_whole = duration.subsec_nanos() == 0 && duration.as_secs().is_multiple_of(unit);
        let same = is_whole.then(|| (duration.as_secs() / unit).to_string());
        RecipeFact { variable, key, here: format_duration(duration), same }
    };
    vec![
        store("MYSQLHOST", |shared| &shared.host),
        store("MYSQLDB", |shared| &shared.name),
        time("BLOCK_EXPIRE", "delay", greylist.delay, MINUTE),
        time("RECORD_EXPIRE", "retry-window", greylist.retry_window, MINUTE),
        time("RECORD_EXPIRE_GOOD", "lifetime", greylist.lifetime, DAY),
    ]
}
