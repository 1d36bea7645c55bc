//! man: the manual pages and the shells' completions, drawn from the command line itself and from the
//! reference of keys, so that they cannot say anything else.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, italic, roman};
use lamppost_config::Key;

use super::out;
use crate::exit::{Code, Failure};

/// What the pages belong to, at their foot.
const MANUAL: &str = "Lamppost";
/// The completions of each shell, under the names by which Debian's shells find them.
const COMPLETIONS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "bash", "lamppost"),
    (Shell::Zsh, "zsh", "_lamppost"),
    (Shell::Fish, "fish", "lamppost.fish"),
];
/// The codes that the program ends with, and what they mean.
const EXIT_CODES: [(&str, &str); 9] = [
    ("0", "It is done."),
    ("64", "The command line is wrong."),
    ("65", "What was given, or asked for, is not there or not right."),
    ("69", "The running program does not answer."),
    ("70", "Something that should not fail did."),
    ("71", "The system lacks something."),
    ("74", "Reading or writing failed."),
    ("77", "Who asks may not."),
    ("78", "The configuration is wrong."),
];
/// The files of an installed system.
const FILES: [(&str, &str); 5] = [
    ("/etc/lamppost/lamppost.toml", "The configuration, see lamppost.toml(5)."),
    ("/var/lib/lamppost", "The state: the queue, the accounts, the greylist, mail."),
    (
        "/var/lib/lamppost/control.sock",
        "The socket by which the commands talk to the running program.",
    ),
    (lamppost_compat::SYSTEM_SOCKET, "The socket by which local users hand in mail."),
    (
        lamppost_compat::GREYLIST_SOCKET,
        "The socket where qmail's envelope scanner asks the greylist, once the configuration says so.",
    ),
];

/// Write the manual pages and the completions.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The folder; man1, man5 and completions are made in it
    folder: PathBuf,
}

impl Man {
    pub(crate) fn execute(self, command: &clap::Command) -> Result<(), Failure> {
        let written = write_all(&self.folder, command);
        let written = written.map_err(|error| {
            let step = format!("cannot write into {}", self.folder.display());
            Failure::at(Code::Io, &step, &error)
        })?;
        let pages = out::count(written, "page");
        out::print(&format!("{pages} and the completions are in {}.\n", self.folder.display()))
    }
}

/// Writes everything and tells how many pages there are.
fn write_all(folder: &Path, command: &clap::Command) -> io::Result<u64> {
    let (commands, formats) = (folder.join("man1"), folder.join("man5"));
    std::fs::create_dir_all(&commands)?;
    std::fs::create_dir_all(&formats)?;
    let mut command = command.clone().disable_help_subcommand(true);
    for (shell, place, file) in COMPLETIONS {
        let folder = folder.join("completions").join(place);
        std::fs::create_dir_all(&folder)?;
        let mut completions = Vec::new();
        clap_complete::generate(shell, &mut command, "lamppost", &mut completions);
        std::fs::write(folder.join(file), completions)?;
    }
    command.build();
    let written = write_commands(&commands, &command)?;
    std::fs::write(formats.join("lamppost.toml.5"), format_page(&lamppost_config::reference()))?;
    std::fs::write(commands.join("lamppost-sendmail.1"), sendmail_page())?;
    Ok(written + 2)
}

/// The page of a command and those of the commands below it.
fn write_commands(folder: &Path, command: &clap::Command) -> io::Result<u64> {
    let is_whole = command.get_display_name().is_none_or(|name| name == "lamppost");
    let page = clap_mangen::Man::new(command.clone()).source(source()).manual(MANUAL);
    let mut text = Vec::new();
    page.render(&mut text)?;
    if is_whole {
        text.extend(end_of_first_page().into_bytes());
    } else {
        text.extend(see_also(&[("lamppost", "1"), ("lamppost.toml", "5")]).render().into_bytes());
    }
    std::fs::write(folder.join(page.get_filename()), text)?;
    let mut written = 1;
    for below in command.get_subcommands() {
        if !below.is_hide_set() && below.get_name() != "help" {
            written += write_commands(folder, below)?;
        }
    }
    Ok(written)
}

fn source() -> String {
    format!("lamppost {}", env!("CARGO_PKG_VERSION"))
}

/// What the first page says beside its commands.
fn end_of_first_page() -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["FILES"]);
    for (path, text) in FILES {
        roff.control("TP", []).text([italic(path)]).text([roman(text)]);
    }
    list(&mut roff, "EXIT STATUS", &EXIT_CODES);
    roff.render() + &see_also(&[("lamppost.toml", "5"), ("systemctl", "1")]).render()
}

/// A section with a word and its meaning in each entry.
fn list(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (word, text) in entries {
        roff.control("TP", []).text([bold(*word)]).text([roman(*text)]);
    }
}

/// lamppost-sendmail(1): the program that `compat install` puts somewhere as sendmail. Its page has the
/// project's name, since other mail servers bring a sendmail(1).
fn sendmail_page() -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["lamppost-sendmail", "1", "", &source(), MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("lamppost-sendmail - hand in mail of local programs, as sendmail")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("sendmail"), roman(" [OPTION …] [RECIPIENT …]")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        roman("Hands the message on standard input to the running lamppost. "),
        bold("lamppost compat install DIR"),
        roman(
            " puts it into a folder, under the names sendmail, mailq and newaliases. A message is \
             taken as a whole or not at all: it ends with 0 once the message is durable for all its \
             recipients.",
        ),
    ]);
    roff.control("PP", []);
    roff.text([roman(
        "The system tells who calls: each user sends under its own address, and those of \
         trusted-users in [mail.sendmail] under any.",
    )]);
    list(&mut roff, "OPTIONS", &lamppost_compat::OPTIONS);
    roff.control("PP", []);
    roff.text([roman(
        "Options stand before recipients. Those on how others queue, log or report are taken and \
         ignored.",
    )]);
    list(&mut roff, "EXIT STATUS", &lamppost_compat::EXIT_CODES);
    let pages = [("lamppost-compat-install", "1"), ("lamppost.toml", "5")];
    roff.render() + &see_also(&pages).render()
}

fn see_also(pages: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let mut words = Vec::new();
    for (name, section) in pages {
        let before = if words.is_empty() { "" } else { ", " };
        words.extend([roman(before), bold(*name), roman(format!("({section})"))]);
    }
    roff.text(words);
    roff
}

/// lamppost.toml(5): every key with its meaning and its default.
fn format_page(keys: &[Key]) -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["lamppost.toml", "5", "", &source(), MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("lamppost.toml - the configuration of lamppost")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([italic("/etc/lamppost/lamppost.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "A file in TOML. A key that is missing has its default, an unknown one is an error. The \
         program reads the file when it begins and when it is told to reload; a file that is wrong \
         changes nothing. Durations are written as \"5m\" (ms, s, m, h, d), sizes as \"64MiB\" (B, \
         KiB, MiB, GiB).",
    )]);
    roff.control("PP", []);
    roff.text([
        bold("lamppost check"),
        roman(" tells everything that is wrong with a file, "),
        bold("lamppost explain KEY"),
        roman(" explains a key, "),
        bold("lamppost config show"),
        roman(" tells what is in force and why."),
    ]);
    let mut section = "";
    for key in keys {
        let (own, name) = key.name.rsplit_once('.').unwrap_or(("", &key.name));
        if own != section {
            section = own;
            let is_list = own == "mail.listen";
            let heading = if is_list { format!("[[{own}]]") } else { format!("[{own}]") };
            roff.control("SH", [heading.as_str()]);
            if is_list {
                roff.text([roman("Each listener is a section of its own.")]);
            }
        }
        roff.control("TP", []);
        roff.text([bold(name), roman(" = "), italic(&key.default)]);
        roff.text([roman(&key.text)]);
    }
    roff.render() + &see_also(&[("lamppost", "1"), ("lamppost-check", "1")]).render()
}
