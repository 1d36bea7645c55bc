//! The least of mail servers on descriptors 0 and 1: it greets, says yes to everything, and ends after
//! QUIT. tcpserver and rblsmtpd start it for who may connect.

use std::io::{self, BufRead as _, Write as _};

fn main() -> io::Result<()> {
    let (mut out, mut lines) = (io::stdout().lock(), io::stdin().lock().lines());
    out.write_all(b"220 greet.lamppost.test\r\n")?;
    out.flush()?;
    while let Some(line) = lines.next().transpose()? {
        let is_over = line.trim_end().eq_ignore_ascii_case("QUIT");
        out.write_all(if is_over { b"221 bye\r\n" } else { b"250 ok\r\n" })?;
        out.flush()?;
        if is_over {
            break;
        }
    }
    Ok(())
}
