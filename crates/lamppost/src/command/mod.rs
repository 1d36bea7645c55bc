//! The command line.

mod account;
mod backup;
mod compat;
mod config;
mod doctor;
mod greylist;
mod log;
mod man;
pub(crate) mod out;
mod pause;
mod progress;
mod queue;
mod reload;
pub(crate) mod remarks;
mod security;
mod setup;
mod status;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use lamppost_console::{Client, ClientError};

use crate::exit::{Code, Failure};
use crate::place::Place;
use crate::run::Role;

/// The services around a LAMP server, in one program
#[derive(Debug, Parser)]
#[command(name = "lamppost", version, disable_help_subcommand = false, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the services; without a configuration file, a demo on loopback
    Run {
        /// Begin all that `run` begins, take no connection and deliver nothing, and end: `upgrade` has a new
        /// program do so before it takes the place of the one that runs
        #[arg(long, hide = true)]
        rehearse: bool,
    },
    /// Check a configuration file and tell everything that is wrong with it
    Check(config::Check),
    /// Write a configuration file to begin with, all keys explained
    Init(config::Init),
    /// Show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Explain a key of the configuration file, or all of a section
    Explain(config::Explain),
    /// Manage the accounts: mailboxes and their passwords
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Look at the queue and change what is in it; alone, list it
    Queue(Box<queue::Queue>),
    /// Look at the greylist and change what it knows
    #[command(subcommand)]
    Greylist(greylist::GreylistCommand),
    /// Show what runs and how it is
    ///
    /// Ends with code 69 when the program does not run, or a part of it does not answer, which is told within
    /// some seconds.
    Status(status::Status),
    /// Look at ports, DNS, disk, clock, certificate, database and permissions, and tell what to mend
    ///
    /// Each line is ok, WARN or FAIL and says what to do; the exit code is 69 when a line is FAIL. The
    /// name of this host is looked up by the system's resolver, and each list in the DNS is asked about its
    /// test entries. MX and PTR records, and how exact the clock is, are not looked at. Nothing else is
    /// asked outside of this machine.
    Doctor(doctor::Doctor),
    /// Tell what became of a message or a session
    Log(log::Log),
    /// Make the running program read its configuration file again
    ///
    /// Ends once all of it is in force, or with all that is wrong: the old configuration stays in force then.
    /// What `check` would warn of is told too, and what it waits for while it waits.
    Reload,
    /// Have new connections, or deliveries, wait until `resume`
    Pause(pause::Pause),
    /// Have connections or deliveries go on after `pause`
    Resume(pause::Resume),
    /// Have the program's file, which a newer one may have replaced, take the place of what runs
    ///
    /// No connection is refused meanwhile: those that come wait until the new one takes them, and those
    /// that are open may finish within `stop-grace`. The new program is tried first.
    Upgrade,
    /// Be one role; `run` starts them all
    #[command(hide = true)]
    Role {
        /// Which
        role: Role,
        /// Try what the role may not do, and tell what came of it
        #[arg(long)]
        probe: bool,
    },
    /// Write the manual pages and the shells' completions into a folder, for a package
    #[command(hide = true)]
    Man(man::Man),
    /// Write all state into one file, while the program runs or not; or check such a file
    ///
    /// In it are the queue, the accounts, the greylist, the outcome log, the demo's certificates and the
    /// configuration file; not the Maildirs, nor the files that the configuration names. FILE gets its
    /// name only once it is whole, and only you may read it: passwords' hashes and mail are in it.
    Backup(backup::Backup),
    /// Make a state folder out of a backup, of a program that does not run
    ///
    /// Everything in FILE is proved before anything is touched. A state that is there already is left
    /// alone; with --force it is put aside. What was in the queue is held, since the original may have
    /// delivered it since: look at it with `queue`, then `queue release` or `queue delete`.
    Restore(backup::Restore),
    /// Prepare this machine, as root: make the users, the state folder and a first configuration file
    ///
    /// What is there stays as it is, so that this can be repeated; where the Debian package is installed
    /// nothing is left to do. The users are `lamppost` and one for each role; systemd-sysusers makes them,
    /// or useradd where there is none.
    Setup(setup::Setup),
    /// Put small programs under names of old, such as sendmail, into a folder
    #[command(subcommand)]
    Compat(compat::CompatCommand),
    /// Ask the running greylist about a recipient, as qmail-smtpd does of old: `FROM TO`
    ///
    /// The exit code is 101 when the recipient must wait, 100 when it is refused for good, and 0 when it is
    /// accepted; so it is when the greylist does not answer within 5 seconds, or cannot be asked at all, which
    /// one line on standard error tells, or in the system's log where standard error leads nowhere. The client is
    /// $TCPREMOTEIP or $TCP6REMOTEIP. Who has $RELAYCLIENT, or `off`, `no` or `0` in $GREYLISTING, is accepted
    /// without a question. FROM is taken without a tag of BATV (`prvs=…=`).
    ///
    /// The greylist is asked where [mail.greylist.service] listens: `compat install` notes that place in the
    /// program, `$LAMPPOST_GREYLIST_SOCKET` names another (a path, or ADDRESS:PORT), and the usual one is
    /// /run/lamppost/greylist.sock.
    ///
    /// What `$MYSQLHOST`, `$MYSQLDB`, `$BLOCK_EXPIRE`, `$RECORD_EXPIRE` (minutes) and `$RECORD_EXPIRE_GOOD` (days) say is
    /// held against [mail.greylist] of the running program, which decides; where they differ, that is told
    /// once a day here and in the program's log. `$MYSQLUSER` and `$MYSQLPASS` are not looked at.
    QmailEnvelopeScanner(Words),
    /// Have the running greylist forget whose time is over, as the cron job of old does
    ///
    /// The program does so by itself every minute, so that there is no need for such a job. It ends with 0
    /// and without a word once that is done, and with a line and another code when it cannot be. What
    /// `$MYSQLHOST`, `$MYSQLDB`, `$BLOCK_EXPIRE`, `$RECORD_EXPIRE` and `$RECORD_EXPIRE_GOOD` say is held against
    /// [mail.greylist], and where they differ that is told; `$MYSQLUSER` and `$MYSQLPASS` are not looked at.
    GreylistingDeleteExpired,
    /// Refuse clients that lists in the DNS name, have a program serve the others: `[OPTIONS] PROGRAM [ARGUMENT …]`
    ///
    /// It does what ucspi-tcp's program does, with its options, environment, lines and exit codes: `-r BASE`
    /// and `-a BASE` name lists, `-b` and `-c` stand before those that they are for, and $RBLSMTPD decides
    /// alone. All lists are asked at once, about clients of IPv6 too, and have `-T N` seconds together, 3 by
    /// default; `-v` tells those that fail.
    Rblsmtpd(Words),
    /// Make the cdb of connection rules out of their text on standard input: `[-e] RULES.CDB RULES.TMP`
    ///
    /// It does what ucspi-tcp's program does: RULES.TMP is written, and becomes RULES.CDB once it is whole
    /// and durable; the cdb is the same, byte for byte. The exit code is 100 for a line that is no rule and
    /// 111 for a file that cannot be read or written; RULES.CDB stays as it was then. With -e the text may
    /// hold networks and comments behind rules, and a wrong line is told with its place and a cure.
    Tcprules(Words),
    /// Tell what the cdb of connection rules says of a client: `[-e] RULES.CDB`
    ///
    /// It does what ucspi-tcp's program does: the client is $TCPREMOTEIP, $TCPREMOTEHOST and
    /// $TCPREMOTEINFO. The exit code is 111 for a file that cannot be read or is no cdb. With -e networks
    /// are looked up too, as the mail service does, and the file may be a text.
    Tcprulescheck(Words),
    /// Have a program serve each connection that the rules allow: `[OPTIONS] HOST PORT PROGRAM [ARGUMENT …]`
    ///
    /// It does what ucspi-tcp's program does, with its options, environment, lines and exit codes; HOST may
    /// be an IPv6 address. No process is begun before a connection is allowed. `-C N` takes N connections
    /// at once from one address (IPv6: from one /64), and a rule may say another number in MAXCONNIP;
    /// `-T N` waits N seconds for a name, 5 by default.
    Tcpserver(Words),
    /// Take mail of one client on descriptors 0 and 1, for tcpserver: `[CHECKPASSWORD PROGRAM [ARGUMENT …]]`
    ///
    /// It does what qmail's program does, with its control files (in $QMAILHOME, /var/qmail by default),
    /// environment, replies and exit codes. Messages go to $QMAILQUEUE where that is set, as to
    /// qmail-queue, and else to the running Lamppost by the socket of `[mail.sendmail]`, where the user that
    /// this runs as must be one of `trusted-users`. With CHECKPASSWORD there is AUTH. Each recipient of a
    /// client that may not relay is put before /usr/sbin/qmail-envelope-scanner, while that is there.
    QmailSmtpd(Words),
}

/// What is passed on as it is.
#[derive(Args, Debug)]
struct Words {
    /// What the program of this name takes
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Does what `lamppost qmail-envelope-scanner FROM TO` says; nothing where that is not what is called.
pub(crate) fn envelope_scanner(words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let words: Vec<_> = words.skip(1).take(4).collect();
    match &words[..] {
        [name, addresses @ ..] if name == "qmail-envelope-scanner" && addresses.len() == 2 => {
            Some(lamppost_compat::envelope_scanner(addresses))
        }
        _ => None,
    }
}

/// Does what the command line says.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { place, command } = arguments;
    let done = match command {
        // They end with codes of their own.
        Command::QmailEnvelopeScanner(Words { words }) => {
            return Ok(lamppost_compat::envelope_scanner(&words));
        }
        Command::Rblsmtpd(Words { words }) => return Ok(lamppost_compat::rblsmtpd(&words)),
        Command::Tcprules(Words { words }) => return Ok(lamppost_compat::tcprules(&words)),
        Command::Tcprulescheck(Words { words }) => {
            return Ok(lamppost_compat::tcprulescheck(&words));
        }
        Command::Tcpserver(Words { words }) => return Ok(lamppost_compat::tcpserver(&words)),
        Command::QmailSmtpd(Words { words }) => return Ok(lamppost_compat::qmail_smtpd(&words)),
        Command::Run { rehearse } => crate::run::run(&place, rehearse),
        Command::Check(check) => check.execute(&place),
        Command::Init(init) => init.execute(&place),
        Command::Config(command) => command.execute(&place),
        Command::Explain(explain) => explain.execute(&place),
        Command::Account(command) => wait(command.execute(&place)).flatten(),
        Command::Queue(queue) => wait(queue.execute(&place)).flatten(),
        Command::Greylist(command) => wait(command.execute(&place)).flatten(),
        Command::GreylistingDeleteExpired => wait(greylist::delete_expired(&place)).flatten(),
        Command::Status(status) => wait(status.execute(&place)).flatten(),
        Command::Log(log) => log.execute(&place),
        Command::Role { role, probe: true } => crate::run::probe_role(role, &place),
        Command::Role { role, probe: false } => crate::run::run_role(role),
        Command::Reload => wait(reload::reload(&place)).flatten(),
        Command::Upgrade => wait(reload::upgrade(&place)).flatten(),
        Command::Pause(pause) => wait(pause.execute(&place)).flatten(),
        Command::Resume(resume) => wait(resume.execute(&place)).flatten(),
        Command::Man(man) => man.execute(&Arguments::command()),
        Command::Backup(backup) => wait(backup.execute(&place)).flatten(),
        Command::Restore(restore) => restore.execute(&place),
        Command::Doctor(doctor) => doctor.execute(&place),
        Command::Setup(setup) => setup.execute(&place),
        Command::Compat(command) => command.execute(&place),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs a command that talks to the program or to the database.
fn wait<T>(command: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::at(Code::System, "cannot begin", &error))?;
    Ok(runtime.block_on(command))
}

/// A value as part of an address of the control API.
fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            other => {
                let _infallible = write!(text, "%{other:02X}");
            }
        }
    }
    text
}

/// A way to ask the running program.
fn client(place: &Place) -> Result<Client, Failure> {
    Ok(Client::new(&place.reach()?.control_socket))
}

/// What to tell when the running program does not do what was asked.
fn unanswered(error: &ClientError) -> Failure {
    match error {
        ClientError::NotRunning { .. } => Failure::of(Code::Unavailable, error).cure(
            "start it with `lamppost run`; name the same --state or --config if it runs with one",
        ),
        ClientError::Forbidden { .. } => Failure::of(Code::Permission, error)
            .cure(
                "run this as root or as the user that lamppost runs as, with sudo for example; members of \
                 the socket's group may use it where it has one",
            ),
        ClientError::NotFound(_) | ClientError::Refused(_) => Failure::of(Code::Data, error),
        ClientError::Silent { .. } => Failure::of(Code::Unavailable, error)
            .cure("look into its log; `lamppost doctor` looks at the rest"),
        ClientError::BrokenOff(_) => Failure::of(Code::Unavailable, error)
            .cure("it may have done what was asked: look before you ask again"),
        ClientError::Broken(_) => Failure::of(Code::Software, error),
    }
}
