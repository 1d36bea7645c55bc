//! setup: makes what an installed service needs of a machine, its users, its state folder and a first
//! configuration file, where no package has done it.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use lamppost_config::Config;

use super::out;
use crate::exit::{Code, Failure};
use crate::place::{self, Place, SYSTEM_FILE};

/// The users, as sysusers.d(5) wants them; the package's too.
const USERS: &str = include_str!("../../../../packaging/debian/lamppost.sysusers");
/// The group that may read the configuration file.
const GROUP: &str = "lamppost";
/// Where programs of the system are.
const PROGRAMS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// Make the users, the state folder and a first configuration file
#[derive(Args, Debug)]
pub(crate) struct Setup {
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

/// A user that is to be there.
struct User {
    name: &'static str,
    comment: &'static str,
    home: &'static str,
    shell: &'static str,
    /// As sysusers.d(5) wants it.
    line: &'static str,
}

/// What makes users.
enum Maker {
    Sysusers(PathBuf),
    Useradd(PathBuf),
}

impl Setup {
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        if !self.dry_run && !rustix::process::geteuid().is_root() {
            let what = "only root can make users and folders of the system";
            return Err(Failure::new(Code::Permission, what).cure(
                "run `sudo lamppost setup`; `lamppost setup --dry-run` tells what that would do",
            ));
        }
        let file = place.named_file().unwrap_or_else(|| SYSTEM_FILE.into());
        let has_file = file.try_exists().map_err(|error| unmade(&file, &error))?;
        // A file that cannot be used is told before anything is made.
        let config = if has_file { place::load(&file)? } else { Config::demo() };
        let state = place.settle(config, Some(file.clone()), true)?.state;
        self.users()?;
        self.tell(&state.display(), state.is_dir(), || make_state(&state))?;
        self.tell(&file.display(), has_file, || write(&file))?;
        if self.dry_run || has_file {
            return Ok(());
        }
        let option = match file.to_str() {
            Some(SYSTEM_FILE) => String::new(),
            _ => format!(" --config {}", file.display()),
        };
        out::print(&format!(
            "\nNow:\n  edit {}; `lamppost{option} check` tells what is wrong with it\n  \
             `lamppost{option} run` as root: each role becomes a user of its own\n",
            file.display()
        ))
    }

    /// Makes what is not there, unless nothing is to be done, and tells of it.
    fn tell(
        &self,
        what: &dyn std::fmt::Display,
        is_there: bool,
        make: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let word = match (is_there, self.dry_run) {
            (true, _) => "is there   ",
            (false, true) => "would make ",
            (false, false) => {
                make()?;
                "made       "
            }
        };
        out::print(&format!("{word} {what}\n"))
    }

    fn users(&self) -> Result<(), Failure> {
        let users: Vec<_> = users().collect();
        let there: Vec<_> = users.iter().map(|user| lamppost_net::is_user(user.name)).collect();
        let missing = users.iter().zip(&there).filter(|(_, is_there)| !**is_there);
        let missing: Vec<_> = missing.map(|(user, _)| user).collect();
        if !missing.is_empty() {
            let maker = Maker::find().ok_or_else(|| no_maker(&missing))?;
            if !self.dry_run {
                maker.make(&missing)?;
            }
        }
        for (user, is_there) in users.iter().zip(there) {
            self.tell(&format_args!("the user {}", user.name), is_there, || Ok(()))?;
        }
        Ok(())
    }
}

/// The users of the list.
fn users() -> impl Iterator<Item = User> {
    USERS.lines().filter_map(|line| {
        let (start, rest) = line.split_once('"')?;
        let (comment, rest) = rest.split_once('"')?;
        let mut start = start.split_whitespace();
        let (mut rest, "u") = (rest.split_whitespace(), start.next()?) else { return None };
        let (name, home, shell) = (start.next()?, rest.next()?, rest.next()?);
        Some(User { name, comment, home, shell, line })
    })
}

impl Maker {
    fn find() -> Option<Self> {
        let found = |name: &str| {
            let paths = PROGRAMS.map(|folder| Path::new(folder).join(name));
            paths.into_iter().find(|path| path.is_file())
        };
        let sysusers = found("systemd-sysusers").map(Self::Sysusers);
        sysusers.or_else(|| found("useradd").map(Self::Useradd))
    }

    fn make(&self, missing: &[&User]) -> Result<(), Failure> {
        match self {
            Self::Sysusers(program) => {
                let lines: String = missing.iter().flat_map(|user| [user.line, "\n"]).collect();
                run(Command::new(program).arg("-"), &lines)?;
            }
            Self::Useradd(program) => {
                for user in missing {
                    run(&mut user.useradd(program), "")?;
                }
            }
        }
        match missing.iter().find(|user| !lamppost_net::is_user(user.name)) {
            None => Ok(()),
            Some(user) => {
                let what = format!("/etc/passwd does not list the user {} after all", user.name);
                Err(Failure::new(Code::System, what).cure("make it by hand, then do this again"))
            }
        }
    }
}

impl User {
    fn useradd(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["--system", "--no-create-home", "--home-dir", self.home]);
        command.args(["--shell", self.shell, "--comment", self.comment]);
        // A group of that name may be there already.
        match lamppost_net::group_id(self.name) {
            Some(_) => command.args(["--gid", self.name]),
            None => command.arg("--user-group"),
        };
        command.arg(self.name);
        command
    }
}

/// Runs a program of the system that reads `input`.
fn run(command: &mut Command, input: &str) -> Result<(), Failure> {
    let name = command.get_program().display().to_string();
    let failed =
        |error: &io::Error| Failure::at(Code::System, &format!("cannot run {name}"), error);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why itself.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(Code::System, format!("{name} makes no users: {}", said.trim())))
}

/// Tells what is to be made by hand.
fn no_maker(missing: &[&User]) -> Failure {
    let mut cure = String::from(
        "make these system users, each with a group of its own name, then do this again:",
    );
    for User { name, comment, home, shell, .. } in missing {
        let _infallible =
            write!(cure, "\n    {name}: home {home}, shell {shell}, comment \"{comment}\"");
    }
    let what = "neither systemd-sysusers nor useradd is on this machine";
    Failure::new(Code::System, what).cure(cure)
}

/// Nobody but root changes the folder itself; the roles pass through it.
fn make_state(state: &Path) -> Result<(), Failure> {
    let made = || {
        if let Some(above) = state.parent() {
            std::fs::create_dir_all(above)?;
        }
        DirBuilder::new().mode(0o711).create(state)?;
        // Whatever the umask is.
        std::fs::set_permissions(state, Permissions::from_mode(0o711))
    };
    made().map_err(|error| unmade(state, &error))
}

/// Writes a first configuration file, which the service's group may read.
fn write(path: &Path) -> Result<(), Failure> {
    let written = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let filled = file
            .write_all(lamppost_config::init_text().as_bytes())
            .and_then(|()| fchown(&file, None, lamppost_net::group_id(GROUP)))
            .and_then(|()| file.set_permissions(Permissions::from_mode(0o640)))
            .and_then(|()| file.sync_all());
        if filled.is_err() {
            // Half a file would be taken for the administrator's.
            drop(std::fs::remove_file(path));
        }
        filled
    };
    written().map_err(|error| unmade(path, &error))
}

fn unmade(path: &Path, error: &io::Error) -> Failure {
    Failure::at(Code::Io, &format!("cannot make {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Role;

    #[test]
    fn the_list_has_the_service_and_every_role() {
        let roles = Role::ALL.iter().map(|role| crate::run::user_name(*role));
        let expected: Vec<_> = std::iter::once(GROUP.to_owned()).chain(roles).collect();
        assert_eq!(users().map(|user| user.name).collect::<Vec<_>>(), expected);
        let text: Vec<_> = USERS.lines().filter(|line| line.starts_with("u ")).collect();
        assert_eq!(users().map(|user| user.line).collect::<Vec<_>>(), text);
        let front = users().nth(1).unwrap();
        let command = front.useradd(Path::new("/usr/sbin/useradd"));
        let arguments: Vec<_> = command.get_args().filter_map(|one| one.to_str()).collect();
        let arguments = arguments.join("|");
        insta::assert_snapshot!(arguments, @"--system|--no-create-home|--home-dir|/nonexistent|--shell|/usr/sbin/nologin|--comment|Lamppost SMTP sessions|--user-group|lamppost-front");
    }
}
