//! What the compiler does not check: the crate graph, file sizes, docs, leftovers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::machine::root;

/// The floors of the house, the lowest first; a crate may use those of lower floors, and of its own
/// floor only where that is named here.
const FLOORS: [&[&str]; 4] = [
    &[
        "lamppost-backup",
        "lamppost-config",
        "lamppost-net",
        "lamppost-sandbox",
        "lamppost-database",
        "lamppost-disk",
        "lamppost-dns",
        "lamppost-load",
        "lamppost-telemetry",
    ],
    &[
        "lamppost-sim",
        "lamppost-smtp",
        "lamppost-delegation",
        "lamppost-roles",
        "lamppost-greylist",
        "lamppost-accounts",
        "lamppost-rules",
        "lamppost-evidence",
    ],
    &[
        "lamppost-mail",
        "lamppost-queue",
        "lamppost-delivery",
        "lamppost-console",
        "lamppost-compat",
    ],
    &["lamppost"],
];
/// Ideas may build on other ideas, services never on other services.
const SAME_FLOOR_ALLOWED: usize = 1;
/// Services do not know the configuration file.
const CONFIG: &str = "lamppost-config";
/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 450;
/// What must not be left in the code, in two halves so that this file does not hold it.
const LEFTOVERS: [(&str, &str); 6] = [
    ("todo", "!("),
    ("unimplemented", "!("),
    ("#[ig", "nore"),
    ("should", "_panic"),
    ("thread::", "sleep"),
    ("FIX", "ME"),
];

/// Checks everything and tells all that is wrong.
pub(crate) fn run() -> Result<()> {
    let mut problems = Vec::new();
    for path in files(&root().join("crates"), "toml")? {
        manifest(&path, &mut problems)?;
    }
    let folders = ["crates", "xtask", "fuzz/fuzz_targets"];
    for folder in folders {
        for path in files(&root().join(folder), "rs")? {
            source(&path, &mut problems)?;
        }
    }
    for path in files(&root(), "md")? {
        links(&path, &mut problems)?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

/// All files below a folder whose names end so; build products are left out.
fn files(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == end) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The arrows of a crate go down only, and versions stand in the root manifest only.
fn manifest(path: &Path, problems: &mut Vec<String>) -> Result<()> {
    let folder =
        path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let text = read(path)?;
    let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    if !text.contains("[dependencies]") {
        return Ok(());
    }
    let Some(own) = FLOORS.iter().position(|floor| floor.contains(&folder.as_str())) else {
        problems.push(format!("{shown}: the crate has no floor in xtask/src/tidy.rs"));
        return Ok(());
    };
    let dependencies = text.split("[dev-dependencies]").next().unwrap_or_default();
    let dependencies = dependencies.split("[dependencies]").nth(1).unwrap_or_default();
    for line in dependencies.lines().filter(|line| line.contains('=')) {
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if !line.contains("workspace = true") {
            problems.push(format!("{shown}: {name} must be `{name}.workspace = true`"));
        }
        let Some(floor) = FLOORS.iter().position(|floor| floor.contains(&name)) else { continue };
        if floor > own || (floor == own && own != SAME_FLOOR_ALLOWED) {
            problems.push(format!("{shown}: {folder} must not use {name}: arrows go down only"));
        }
        if name == CONFIG && folder != "lamppost" {
            problems.push(format!("{shown}: only the binary knows {CONFIG}"));
        }
    }
    Ok(())
}

/// A source file says what it is for, is not too long, and holds no leftovers.
fn source(path: &Path, problems: &mut Vec<String>) -> Result<()> {
    let text = read(path)?;
    let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    if !text.starts_with("//!") && !text.starts_with("#![no_main]") {
        problems.push(format!("{shown}: the first line must say what the file is for (`//! …`)"));
    }
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    if lines > FILE_LINES_MAX && !shown.contains("/tests/") {
        problems.push(format!("{shown}: {lines} lines before its tests; is it really one thing?"));
    }
    for (number, line) in text.lines().enumerate() {
        for (first, second) in LEFTOVERS {
            if line.contains(&format!("{first}{second}")) {
                problems.push(format!("{shown}:{}: {first}{second} must not stay", number + 1));
            }
        }
    }
    Ok(())
}

/// Files that a document links to are there.
fn links(path: &Path, problems: &mut Vec<String>) -> Result<()> {
    let text = read(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let target = link.split('#').next().unwrap_or_default();
        let outside = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
        if !outside && !folder.join(target).exists() {
            problems.push(format!("{shown}: links to {target}, which is not there"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, text: &str, check: fn(&Path, &mut Vec<String>) -> Result<()>) -> usize {
        let folder = std::env::temp_dir().join(format!("tidy-{}-{name}", std::process::id()));
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mut problems = Vec::new();
        check(&path, &mut problems).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        problems.len()
    }

    #[test]
    fn arrows_go_down_only() {
        let check = |name: &str, line: &str| {
            let text =
                format!("[dependencies]\n{line}\n[dev-dependencies]\nlamppost-mail = \"1\"\n");
            problems(&format!("{name}/Cargo.toml"), &text, manifest)
        };
        assert_eq!(check("lamppost-queue", "lamppost-net.workspace = true"), 0);
        assert_eq!(check("lamppost-queue", "lamppost-mail.workspace = true"), 1);
        assert_eq!(check("lamppost-smtp", "lamppost-queue.workspace = true"), 1);
        assert_eq!(check("lamppost-roles", "lamppost-smtp.workspace = true"), 0);
        assert_eq!(check("lamppost-mail", "lamppost-config.workspace = true"), 1);
        assert_eq!(check("lamppost", "lamppost-config.workspace = true"), 0);
        assert_eq!(check("lamppost-mail", "bytes = \"1\""), 1);
        assert_eq!(check("lamppost-unknown", ""), 1);
    }

    #[test]
    fn files_say_what_they_are_for() {
        assert_eq!(problems("good.rs", "//! Good.\n", source), 0);
        assert_eq!(problems("bad.rs", "fn main() {}\n", source), 1);
        let long = format!("//! Long.\n{}", "// x\n".repeat(FILE_LINES_MAX));
        assert_eq!(problems("long.rs", &long, source), 1);
        let tested = format!("//! Tested.\n#[cfg(test)]\n{}", "// x\n".repeat(FILE_LINES_MAX));
        assert_eq!(problems("tested.rs", &tested, source), 0);
        let left = format!("//! Left.\n{}{}\n", LEFTOVERS[0].0, LEFTOVERS[0].1);
        assert_eq!(problems("left.rs", &left, source), 1);
    }

    #[test]
    fn links_lead_somewhere() {
        assert_eq!(problems("a.md", "[self](a.md#x) [out](https://x.test)", links), 0);
        assert_eq!(problems("b.md", "[gone](gone.md)", links), 1);
    }
}
