//! A policy server that answers DUNNO to everything, at the address that is its only argument: the
//! measure for those that think before they answer.

use std::error::Error;

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "nothing but the address is to be tried out here")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: dunno ADDRESS:PORT")?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(lamppost_load::answer_dunno(listener).await?)
}
