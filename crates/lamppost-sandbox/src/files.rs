//! Files and TCP ports, by Landlock (landlock(7)).

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};

use crate::{Power, SandboxError, Sockets};

/// The newest version whose rights are asked for.
const NEWEST: ABI = ABI::V6;
/// The version that restricts TCP ports.
const PORTS_SINCE: u32 = 4;
/// The version that keeps signals and abstract sockets inside.
const SCOPES_SINCE: u32 = 6;

/// Restricts files and ports; tells which version of Landlock holds, and what it lacks.
pub(crate) fn restrict(
    power: &Power,
    missing: &mut Vec<String>,
) -> Result<Option<u32>, SandboxError> {
    let failed = |error: landlock::RulesetError| {
        SandboxError::refused("restrict files by Landlock")(error.into())
    };
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .map_err(failed)?
        .scope(Scope::from_all(NEWEST))
        .map_err(failed)?;
    let ports: BitFlags<AccessNet> = match power.sockets {
        Sockets::None | Sockets::Ask { .. } => AccessNet::BindTcp | AccessNet::ConnectTcp,
        Sockets::Connect => AccessNet::BindTcp.into(),
        Sockets::All => BitFlags::EMPTY,
    };
    if !ports.is_empty() {
        ruleset = ruleset.handle_access(ports).map_err(failed)?;
    }
    let mut created = ruleset.create().map_err(failed)?;
    if let Sockets::Ask { ports, .. } = &power.sockets {
        for &port in ports {
            created =
                created.add_rule(NetPort::new(port, AccessNet::ConnectTcp)).map_err(failed)?;
        }
    }
    for path in &power.reads {
        created = allow(created, path, AccessFs::from_read(NEWEST) & !AccessFs::Execute)?;
    }
    for path in &power.writes {
        created = allow(created, path, AccessFs::from_all(NEWEST) & !unwanted())?;
    }
    for path in &power.makes {
        created = allow(created, path, AccessFs::MakeDir | AccessFs::ReadDir)?;
    }
    let status = created.restrict_self().map_err(failed)?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        LandlockStatus::NotEnabled => {
            missing.push("Landlock is not enabled (lsm=landlock): files are not restricted".into());
            return Ok(None);
        }
        LandlockStatus::NotImplemented => {
            missing.push("the kernel has no Landlock: files are not restricted".into());
            return Ok(None);
        }
    };
    if version < PORTS_SINCE {
        missing.push("Landlock of this kernel does not know TCP ports (6.7 and later do)".into());
    }
    if version < SCOPES_SINCE {
        missing.push("Landlock of this kernel does not know signals (6.12 and later do)".into());
    }
    Ok(Some(version))
}

/// What nobody needs in a folder, even where it may write. Symbolic links are among it: where they lead
/// to is looked at when a process begins, and none must be able to choose that for its successor.
fn unwanted() -> BitFlags<AccessFs> {
    AccessFs::Execute
        | AccessFs::MakeSym
        | AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeFifo
        | AccessFs::IoctlDev
}

fn allow(
    ruleset: RulesetCreated,
    path: &std::path::Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    let opened = PathFd::new(path);
    let failed = |source| SandboxError::Path { path: path.to_owned(), source };
    let opened = opened.map_err(|error| failed(error.into()))?;
    // Rights that only folders have mean nothing for a file; best effort drops them.
    let added = ruleset.add_rule(PathBeneath::new(opened, access));
    added.map_err(|error| failed(error.into()))
}
