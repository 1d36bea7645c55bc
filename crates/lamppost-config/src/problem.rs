//! What is wrong with a file, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use crate::reference::place_of;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    #[serde(skip)]
    span: Range<usize>,
}

/// All that is wrong with a file, in the order of the places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The file.
    pub file: String,
    /// What is wrong with it; never empty.
    pub problems: Vec<Problem>,
    #[serde(skip)]
    text: String,
}

impl Problem {
    pub(crate) fn new(text: &str, span: Range<usize>, what: String, cure: Option<String>) -> Self {
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let end = text.floor_char_boundary(span.end.min(text.len())).max(start);
        let before = &text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&letter| letter != '\n').count() + 1;
        Self { line, column, what, cure, span: start..end }
    }
}

/// What is wrong with the value of a key that a check of the text alone cannot find: a file that it
/// names, for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFault {
    /// The key with its section, such as `mail.relay.password`.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub cure: Option<String>,
}

impl Problems {
    /// What is wrong with keys of a file that [`crate::Config::parse`] takes, each at its place. A
    /// key that the file does not have is told at its section.
    pub fn of_keys(file: String, text: String, faults: Vec<KeyFault>) -> Self {
        let problem = |fault: KeyFault| {
            let span = place_of(&text, fault.key);
            Problem::new(&text, span, format!("`{}`: {}", fault.key, fault.what), fault.cure)
        };
        let problems = faults.into_iter().map(problem).collect();
        Self::new(file, text, problems)
    }

    pub(crate) fn new(file: String, text: String, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        Self { file, problems, text }
    }

    /// All problems for people, each with its line and a mark under the place.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let rendered = self.problems.iter().map(|problem| {
            let mark = AnnotationKind::Primary.span(problem.span.clone());
            let snippet = Snippet::source(&self.text).path(&self.file).annotation(mark);
            let group = Level::ERROR.primary_title(&problem.what).element(snippet);
            let group = match &problem.cure {
                Some(cure) => group.element(Level::HELP.message(cure)),
                None => group,
            };
            renderer.render(&[group]).clone()
        });
        rendered.collect::<Vec<_>>().join("\n\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}
