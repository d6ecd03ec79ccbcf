//! Child processes with a time limit. A driver may hang, so one that takes too long is killed.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// Runs a command to its end and returns what it wrote to standard output. One that takes longer than `limit` is killed: a
/// driver may hang.
pub(super) fn output_within(command: &mut Command, limit: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().map_err(|error| anyhow::anyhow!("{name}: cannot be started: {error}"))?;
    let stdout = reader(child.stdout.take().context("standard output")?);
    let stderr = reader(child.stderr.take().context("standard error")?);
    let status = wait(child, limit).with_context(|| name.clone())?;
    let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().unwrap_or_default());
    if !status.success() {
        let last = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
        bail!("{status}: {last}");
    }
    Ok(stdout)
}

fn wait(child: &mut Child, limit: Duration) -> Result<std::process::ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begun.elapsed() >= limit {
            // Fails if the child has ended in the meantime, which is no error.
            let _ = child.kill();
            child.wait()?;
            bail!("not ended after {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

fn reader(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before a failure is still worth showing.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<String> {
        output_within(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn children_are_read_judged_and_killed() {
        let enough = Duration::from_secs(20);
        assert_eq!(shell("echo 1; echo 2 >&2", enough).unwrap(), "1\n");
        let error = shell("echo first >&2; echo why >&2; exit 3", enough).unwrap_err().to_string();
        assert!(error.contains("3") && error.ends_with("why"), "{error}");
        let begun = Instant::now();
        let error = format!("{:#}", shell("exec sleep 30", Duration::from_millis(100)).unwrap_err());
        assert!(error.contains("not ended") && begun.elapsed() < Duration::from_secs(10), "{error}");
        assert!(output_within(&mut Command::new("/no/such/program"), enough).is_err());
    }
}
