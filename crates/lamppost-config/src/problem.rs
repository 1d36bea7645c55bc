//! What is wrong with a file, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The program does not run with it.
    Error,
    /// The program runs, and probably not as it was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
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
    /// What is wrong with it.
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
        Self { severity: Severity::Error, line, column, what, cure, span: start..end }
    }
}

impl Problems {
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
            let level = match problem.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            let group = level.primary_title(&problem.what).element(snippet);
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
