//! Signals by which a program ends with 0, whatever it does at that moment.

/// SIGTERM ends it.
pub(crate) fn well_by_sigterm() {
    well_by(libc::SIGTERM);
}

/// It ends once so many seconds are over, also while it waits for another.
pub(crate) fn well_after(seconds: u32) {
    well_by(libc::SIGALRM);
    #[expect(unsafe_code, reason = "no safe interface sets an alarm that interrupts a read")]
    // SAFETY: alarm(2) takes a number; its signal has a handler.
    let _left = unsafe { libc::alarm(seconds) };
}

fn well_by(signal: libc::c_int) {
    extern "C" fn end(_: libc::c_int) {
        #[expect(unsafe_code, reason = "a handler may call nothing else")]
        // SAFETY: _exit(2) may be called in a handler of signals.
        unsafe {
            libc::_exit(0)
        }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    #[expect(unsafe_code, reason = "no safe interface sets a handler that ends the process")]
    // SAFETY: the handler calls only what a handler may.
    let _before = unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
}
