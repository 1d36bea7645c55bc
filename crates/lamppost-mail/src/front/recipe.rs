//! What the environment of qmail's envelope scanner says of the greylist, held against what is so here: this
//! greylist decides by its own file, and nobody shall find out late that the two differ.

use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a difference that was told is not told again.
const TOLD_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Differences that are told within that time: whoever may ask can say anything.
const TOLD_MAX: usize = 16;
/// Letters of a value that are shown.
const SHOWN_MAX: usize = 60;

/// What a variable of the recipe is about, here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeFact {
    /// The variable.
    pub variable: &'static str,
    /// The key of `[mail.greylist]` that it is about.
    pub key: &'static str,
    /// What the key says.
    pub here: String,
    /// What the variable says when it says the same; nothing when it cannot.
    pub same: Option<String>,
}

impl RecipeFact {
    /// Whether a value of the variable says the same; one that is empty says nothing.
    fn agrees(&self, value: &str) -> bool {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let is_same = |same: &String| match number(value) {
            Some(value) => number(same) == Some(value),
            None => value.trim().eq_ignore_ascii_case(same),
        };
        value.trim().is_empty() || self.same.as_ref().is_some_and(is_same)
    }
}

/// What an environment says that is not so here; nothing when all of it is.
pub fn recipe_differences(facts: &[RecipeFact], said: &[(&str, String)]) -> Option<String> {
    let mut text = String::new();
    for fact in facts {
        let value = said.iter().find(|(variable, _)| *variable == fact.variable);
        let Some((variable, value)) = value.filter(|(_, value)| !fact.agrees(value)) else {
            continue;
        };
        let shown: String = value.chars().take(SHOWN_MAX).collect();
        let before = if text.is_empty() { "" } else { ", " };
        let RecipeFact { key, here, .. } = fact;
        let _infallible = write!(text, "{before}{variable} is {shown} but `{key}` is {here}");
    }
    let cure = "what stands in [mail.greylist] of lamppost.toml holds: change it there, or take the \
                variables out of the environment";
    (!text.is_empty()).then(|| format!("{text}; {cure}"))
}

/// The differences that were told lately.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<(String, Instant)>>);

impl Told {
    /// A difference that is to be told now, if it is one: not again within a day.
    pub(super) fn tell(&self, difference: Option<String>) -> Option<String> {
        let difference = difference?;
        let mut told = self.0.lock();
        told.retain(|(_, at)| at.elapsed() < TOLD_FOR);
        if told.len() >= TOLD_MAX || told.iter().any(|(known, _)| *known == difference) {
            return None;
        }
        told.push((difference.clone(), Instant::now()));
        Some(difference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Vec<RecipeFact> {
        let fact = |variable, key, here: &str, same: Option<&str>| RecipeFact {
            variable,
            key,
            here: here.into(),
            same: same.map(ToOwned::to_owned),
        };
        vec![
            fact("MYSQLDB", "database", "a file of its own", None),
            fact("BLOCK_EXPIRE", "delay", "5m", Some("5")),
        ]
    }

    #[track_caller]
    fn check(said: &[(&'static str, &str)], expected: Option<&str>) {
        let said: Vec<_> = said.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let told = recipe_differences(&facts(), &said);
        assert_eq!(told.as_deref().and_then(|told| told.split(';').next()), expected);
    }

    #[test]
    fn what_differs_is_told_with_its_key() {
        check(&[], None);
        check(&[("BLOCK_EXPIRE", "5")], None);
        check(&[("BLOCK_EXPIRE", " 05 "), ("MYSQLDB", "")], None);
        check(&[("BLOCK_EXPIRE", "x")], Some("BLOCK_EXPIRE is x but `delay` is 5m"));
        let both = "MYSQLDB is grey but `database` is a file of its own, BLOCK_EXPIRE is 55 but `delay` is 5m";
        check(&[("BLOCK_EXPIRE", "55"), ("MYSQLDB", "grey")], Some(both));
        check(
            &[("MYSQLDB", &"x".repeat(99))],
            Some(&format!("MYSQLDB is {} but `database` is a file of its own", "x".repeat(60))),
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_difference_is_told_once_a_day_and_a_flood_of_them_is_not() {
        let told = Told::default();
        let difference = |text: &str| Some(text.to_owned());
        assert_eq!(told.tell(None), None);
        assert_eq!(told.tell(difference("a")), difference("a"));
        assert_eq!(told.tell(difference("a")), None);
        let others = (0..100).filter(|number| told.tell(Some(number.to_string())).is_some());
        assert_eq!(others.count(), TOLD_MAX - 1);
        tokio::time::advance(TOLD_FOR).await;
        assert_eq!(told.tell(difference("a")), difference("a"));
    }
}
