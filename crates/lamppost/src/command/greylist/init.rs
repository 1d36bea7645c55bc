//! greylist init: the tables of a shared greylist, and the database and its user.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use lamppost_config::{GreylistDatabase, Secret, SharedDatabase};
use lamppost_greylist::{Dialect, Password, Server, Step, StoreError, Workshop, admin_statements};

use crate::command::out;
use crate::exit::{Code, Failure};
use crate::named_files::{self, Wrong};
use crate::place::Place;
use crate::run::shared_greylist::SharedGreylist;

/// What stands for the password where statements are printed.
const PASSWORD: &str = "PASSWORD";

/// Make or upgrade the tables of a shared greylist (`database` in `[mail.greylist]`); those of relaydelay and
/// its descendants are kept, and old nodes can go on working beside this program
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print the statements by which an administrator of the database makes it, its user and the grant, in
    /// the words of MariaDB and of MySQL 8
    #[arg(long)]
    admin: bool,
    /// Run these statements
    #[arg(long, requires = "admin", conflicts_with = "dry_run")]
    run: bool,
    /// Whom they are run as
    #[arg(long = "as", value_name = "USER", default_value = "root", requires = "run")]
    administrator: String,
    /// The file that holds that user's password [default: none is needed]
    #[arg(long, value_name = "FILE", requires = "run")]
    as_password_file: Option<PathBuf>,
    /// From which host the user may connect; % for any
    #[arg(long, value_name = "HOST", default_value = "%", requires = "admin")]
    from: String,
}

impl Init {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        let opened = place.open()?;
        let config = &opened.config;
        let (GreylistDatabase::Shared(shared), Some(how)) =
            (&config.mail.greylist.database, SharedGreylist::gather(config)?)
        else {
            return out::print(
                "The greylist is kept in a file, which the program makes by itself: `database` in \
                 [mail.greylist] names no server.\n",
            );
        };
        let server = how.server(shared);
        match (self.admin, self.run) {
            (true, true) => self.administer(server).await,
            (true, false) => out::print(&self.statements(
                &server,
                shared,
                config.mail.greylist.database_password.as_ref(),
            )),
            (false, _) => tables(&server, self.dry_run).await,
        }
    }

    /// What an administrator may run by hand.
    fn statements(
        &self,
        server: &Server,
        shared: &SharedDatabase,
        password: Option<&Secret>,
    ) -> String {
        let mut text = match (&shared.password, password) {
            (None, None) => String::new(),
            _ => format!("-- {PASSWORD} stands for the password that the configuration names.\n"),
        };
        for (name, dialect) in [("MariaDB", Dialect::Mariadb), ("MySQL 8", Dialect::Mysql)] {
            let _infallible = writeln!(text, "-- {name}");
            for statement in admin_statements(server, (&self.from, PASSWORD), dialect) {
                let _infallible = writeln!(text, "{statement};");
            }
        }
        text
    }

    async fn administer(&self, server: Server) -> Result<(), Failure> {
        let secret = self.as_password_file.as_ref().map(|path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            named_files::password(&Secret::File(path)).map_err(|Wrong { what, cure }| {
                Failure::new(Code::Usage, format!("--as-password-file: {what}")).cure(cure)
            })
        });
        let secret = secret.transpose()?;
        let administrator = Server {
            user: self.administrator.clone(),
            password: secret.map(|secret| Password(secret.expose().to_owned())),
            ..server.clone()
        };
        let mut workshop =
            Workshop::open_server(&administrator).await.map_err(|error| failure(&error))?;
        let dialect = workshop.dialect().await.map_err(|error| failure(&error))?;
        let password = server.password.clone().map(|password| password.0).unwrap_or_default();
        for statement in admin_statements(&server, (&self.from, &password), dialect) {
            // The error of a statement shows a part of it, which may be the password.
            workshop.run(&statement).await.map_err(|_| {
                let verb = statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
                let what = format!("the database refused {verb} to {}", self.administrator);
                Failure::new(Code::Unavailable, what)
                    .cure("name a user by --as who may do that, or run what --admin prints")
            })?;
        }
        let (name, user) = (&server.database, &server.user);
        out::print(&format!("The database {name} is there, and {user} may use it.\n"))?;
        tables(&server, false).await
    }
}

/// Brings the tables up to date and tells each step.
async fn tables(server: &Server, is_dry: bool) -> Result<(), Failure> {
    let mut workshop = Workshop::open(server).await.map_err(|error| failure(&error))?;
    let steps = workshop.plan().await.map_err(|error| failure(&error))?;
    if steps.is_empty() {
        return out::print(&format!("The tables of {} are as they should be.\n", server.name()));
    }
    for Step { does, sql } in steps {
        if is_dry {
            out::print(&format!("would {does}:\n  {sql};\n"))?;
            continue;
        }
        out::complain(&format!("{does} …\n"));
        workshop.run(&sql).await.map_err(|error| failure(&error))?;
        out::print(&format!("done: {does}\n"))?;
    }
    Ok(())
}

/// What to tell of a database that does not do what it should.
fn failure(error: &StoreError) -> Failure {
    Failure::of(Code::Unavailable, error).cure(cure(error))
}

/// What to do about it.
pub(crate) fn cure(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unreachable { .. } | StoreError::Silent { .. } | StoreError::Away { .. } => {
            "look whether the database runs and `database` in [mail.greylist] names it rightly; \
             `lamppost greylist init --admin` tells how it, its user and the grant are made"
        }
        StoreError::Foreign { .. } => "name a database of relaydelay's, or an empty one",
        StoreError::Statement { .. } => {
            "`lamppost greylist init --admin` tells what its user must be allowed"
        }
        StoreError::Embedded(_) => "a damaged file comes back from a backup",
    }
}
