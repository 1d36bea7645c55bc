//! Making and upgrading the tables, and the database and its user.

use mysql_async::Conn;

use super::schema::{Found, text};
use super::session::{Server, ServerPlace, Trouble, connect, rows};
use crate::StoreError;

/// A statement that brings a database up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does, for people.
    pub does: String,
    /// The statement.
    pub sql: String,
}

/// Whose words statements for administrators are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `MariaDB`.
    Mariadb,
    /// `MySQL` 8 and later.
    Mysql,
}

/// A connection by which tables are made.
pub struct Workshop {
    connection: Conn,
    name: String,
}

impl Workshop {
    /// Connects to the database.
    ///
    /// # Errors
    /// When that fails.
    pub async fn open(server: &Server) -> Result<Self, StoreError> {
        let connection = connect(server, Some(&server.database)).await?;
        Ok(Self { connection, name: server.name() })
    }

    /// Connects to a server whose database may not be there yet.
    ///
    /// # Errors
    /// When that fails.
    pub async fn open_server(server: &Server) -> Result<Self, StoreError> {
        Ok(Self { connection: connect(server, None).await?, name: server.name() })
    }

    /// The statements that bring the tables up to date; none where they are.
    ///
    /// # Errors
    /// When the database cannot be asked, or holds tables of others by these names.
    pub async fn plan(&mut self) -> Result<Vec<Step>, StoreError> {
        let found = Found::look(&mut self.connection, &self.name).await?;
        let steps = found
            .plan()
            .map_err(|problem| StoreError::Foreign { server: self.name.clone(), problem })?;
        Ok(steps.into_iter().map(|(does, sql)| Step { does, sql }).collect())
    }

    /// Runs one of the statements. There is no deadline: a large table is copied.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        use mysql_async::prelude::Queryable as _;
        self.connection.query_drop(sql).await.map_err(|error| StoreError::Statement {
            server: self.name.clone(),
            what: "change the tables",
            source: error.into(),
        })
    }

    /// Which server it is.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn dialect(&mut self) -> Result<Dialect, StoreError> {
        let what = "ask for its version";
        let version = rows(&mut self.connection, &self.name, what, "SELECT VERSION()").await;
        let version = version.map_err(Trouble::error)?;
        let is_mariadb = version.first().is_some_and(|row| text(row, 0).contains("MariaDB"));
        Ok(if is_mariadb { Dialect::Mariadb } else { Dialect::Mysql })
    }
}

/// The statements by which an administrator makes the database, its user and what that user may do. `from`
/// is the host that may connect, such as `%` for any; it is this one alone where there is a socket.
pub fn admin_statements(
    server: &Server,
    (from, password): (&str, &str),
    dialect: Dialect,
) -> Vec<String> {
    let from = if matches!(server.at, ServerPlace::Socket(_)) { "localhost" } else { from };
    let database = format!("`{}`", server.database.replace('`', "``"));
    let user = format!("{}@{}", quoted(&server.user), quoted(from));
    let proof = match dialect {
        Dialect::Mariadb => format!("IDENTIFIED BY {}", quoted(password)),
        Dialect::Mysql => {
            format!("IDENTIFIED WITH caching_sha2_password BY {}", quoted(password))
        }
    };
    vec![
        format!("CREATE DATABASE IF NOT EXISTS {database} CHARACTER SET utf8mb4"),
        format!("CREATE USER IF NOT EXISTS {user} {proof}"),
        format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON {database}.* TO {user}"
        ),
    ]
}

/// A text of SQL, whether backslashes mean something there or not.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
