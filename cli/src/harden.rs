//! What the process gives up before it reads a secret.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// No core files, and no other process of this user may read this one's memory. Passphrases pass
/// through the command on their way to the agent.
pub(crate) fn process() {
    // Neither call can fail for a process about itself; where a sandbox forbids them the command
    // still works, and the agent's `status` warns of the same sandbox.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(Resource::Core, none);
}
