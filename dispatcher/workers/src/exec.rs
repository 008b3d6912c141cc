//! The last step before a worker's program: `<launcher> __exec --parent PID --memory-bytes N -- program args…`.
//!
//! A worker must die with its controller and must not gain privileges, and both can only be asked for by the process
//! itself between fork and exec. Doing it in a program of its own needs no unsafe code. The parent-death signal is
//! tied to the *thread* that forked, which is why `pool/spawn.rs` spawns from one thread that lives as long as the
//! pool.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Exit code of a launcher that could not do its work, as shells use it for "cannot execute".
const CANNOT_EXEC: u8 = 126;

/// Runs the launcher with the arguments after `__exec`; returns only when it fails, with the reason on stderr.
pub fn exec_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let reason = match parse(args) {
        Ok(order) => order.exec(),
        Err(reason) => reason,
    };
    eprintln!("cannot start worker: {reason}");
    ExitCode::from(CANNOT_EXEC)
}

struct Order {
    parent: Option<Pid>,
    memory_bytes: Option<u64>,
    program: OsString,
    args: Vec<OsString>,
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Order, String> {
    let (mut parent, mut memory_bytes) = (None, None);
    loop {
        let flag = args.next().ok_or("no program given after `--`")?;
        match flag.to_str() {
            Some("--") => break,
            Some("--parent") => {
                let pid = number(&mut args, "--parent")?;
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                parent = Some(pid.ok_or("--parent takes a process id")?);
            }
            Some("--memory-bytes") => memory_bytes = Some(number(&mut args, "--memory-bytes")?),
            _ => return Err(format!("unknown flag {}", flag.display())),
        }
    }
    let program = args.next().ok_or("no program given after `--`")?;
    Ok(Order { parent, memory_bytes, program, args: args.collect() })
}

fn number(args: &mut impl Iterator<Item = OsString>, flag: &str) -> Result<u64, String> {
    let value = args.next().and_then(|value| value.to_str().and_then(|text| text.parse().ok()));
    value.ok_or_else(|| format!("{flag} takes a whole number"))
}

impl Order {
    fn exec(self) -> String {
        match self.confine() {
            Ok(()) => format!(
                "run {}: {}",
                self.program.display(),
                Command::new(&self.program).args(&self.args).exec()
            ),
            Err(reason) => reason,
        }
    }

    fn confine(&self) -> Result<(), String> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| format!("ask to die with the controller: {error}"))?;
        // The parent may have died before the request above was in force.
        if self.parent.is_some() && rustix::process::getppid() != self.parent {
            return Err("the controller is gone".into());
        }
        rustix::thread::set_no_new_privs(true).map_err(|error| format!("give up new privileges: {error}"))?;
        limit(Resource::Core, 0, "core size")?;
        if let Some(bytes) = self.memory_bytes {
            // DATA, not AS: Node reserves far more address space than it ever uses.
            limit(Resource::Data, bytes, "memory")?;
        }
        Ok(())
    }
}

fn limit(resource: Resource, value: u64, name: &str) -> Result<(), String> {
    let held = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(held));
    rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })
        .map_err(|error| format!("limit {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(line: &str) -> Result<Order, String> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from))
    }

    #[test]
    fn the_command_line_is_read_up_to_the_program() {
        let order = order("--parent 7 --memory-bytes 1024 -- prog --parent x").unwrap();
        assert_eq!((order.parent, order.memory_bytes), (Pid::from_raw(7), Some(1024)));
        assert_eq!((order.program, order.args.len()), ("prog".into(), 2));
    }

    #[test]
    fn a_bad_command_line_is_refused() {
        for bad in
            ["", "--", "--parent -- x", "--parent 0 -- x", "--memory-bytes x -- y", "--what 1 -- x", "x"]
        {
            assert!(order(bad).is_err(), "{bad}");
        }
    }
}
