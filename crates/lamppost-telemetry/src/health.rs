//! What is well and what is not, by component.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Look today.
    Warn,
    /// A human must act.
    Fail,
}

/// What is known of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Which component.
    pub component: String,
    /// How it is.
    pub state: State,
    /// What is the matter and what to do about it; for people.
    pub text: String,
}

/// The facts of all components; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    facts: Arc<Mutex<BTreeMap<String, Fact>>>,
}

impl Health {
    /// Replaces what is known of a component.
    pub fn set(&self, component: &str, state: State, text: impl Into<String>) {
        let fact = Fact { component: component.to_owned(), state, text: text.into() };
        self.facts.lock().insert(component.to_owned(), fact);
    }

    /// All facts, by the components' names.
    pub fn facts(&self) -> Vec<Fact> {
        self.facts.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_fact_replaces_the_old_one() {
        let health = Health::default();
        health.set("spool", State::Fail, "the disk is full");
        health.clone().set("spool", State::Ok, "");
        assert_eq!(health.facts().len(), 1);
        assert_eq!(health.facts()[0].state, State::Ok);
    }
}
