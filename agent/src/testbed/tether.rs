//! Processes that must not outlive who started them: they end with their standard input, of which that one holds the
//! other end.

use std::io::Read;

use tokio::sync::oneshot;

/// The variable that says so.
pub const TETHERED: &str = "REMORA_TETHERED";

/// Ends this process, as a crash would, at the end of its input, where it was started so.
pub fn tie() {
    if std::env::var_os(TETHERED).is_some() {
        std::thread::spawn(|| {
            let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
            std::process::exit(1);
        });
    }
}

/// Resolves at the end of standard input.
pub async fn orphaned() {
    let (sender, ended) = oneshot::channel();
    // Not on tokio's own threads, whose end the runtime waits for.
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    // Dropped without a word it has ended too.
    let _ = ended.await;
}
