//! The private MariaDB keeps what was committed through a `kill -9`, and leaves nothing behind.

#![cfg(feature = "peers")]

use std::path::PathBuf;

use lamppost_load::Mariadb;

#[test]
fn keeps_what_was_committed_and_leaves_nothing_behind() {
    let mut database = Mariadb::start(&["--sql-mode=STRICT_ALL_TABLES"]).unwrap();
    let folder = database.socket().parent().map(PathBuf::from).unwrap();
    assert_eq!(database.execute("SELECT @@sql_mode").unwrap(), "STRICT_ALL_TABLES\n");
    database
        .execute("CREATE TABLE greylist.t (v TEXT); INSERT INTO greylist.t VALUES ('ü')")
        .unwrap();
    let address = database.address();
    database.kill().unwrap();
    assert!(database.pid().is_none() && database.execute("SELECT 1").is_err());
    database.start_again().unwrap();
    assert_eq!(database.execute("SELECT v FROM greylist.t").unwrap(), "ü\n");
    assert_eq!(database.address(), address);
    std::net::TcpStream::connect(address).unwrap();
    database.stop().unwrap();
    database.start_again().unwrap();
    let error = database.execute("SELECT nothing").unwrap_err();
    assert!(error.to_string().contains("Unknown column"), "{error}");
    drop(database);
    assert!(!folder.exists());
}
