//! The errors of all rooms, their exit codes and the hints that go with them.

use super::fsck::Broken;
use super::unpack::NotEmpty;
use crate::error::{Kind, cause};
use crate::transfer;
use crate::{
    analyze, archive, bundle, debian, disk, layer, oci, output, recipe, registry, rootfs, run, serve, store,
    sys,
};

/// An error of any room.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    /// A malformed reference, digest or document.
    Oci(#[from] oci::Error),
    /// A registry.
    Registry(#[from] registry::Error),
    /// A copy of an image.
    Transfer(#[from] transfer::Error),
    /// The store.
    Store(#[from] store::Error),
    /// An archive or folder of images.
    Archive(#[from] archive::Error),
    /// The arguments of `import`.
    Import(#[from] super::import::Error),
    /// The arguments of `export`.
    Export(#[from] super::export::Error),
    /// The arguments of `cp`.
    Cp(#[from] super::cp::Error),
    /// An image made of another.
    Back(#[from] super::back::Error),
    /// What an image is made of.
    Analyze(#[from] analyze::Error),
    /// A root filesystem.
    Rootfs(#[from] rootfs::Error),
    /// A layer.
    Layer(#[from] layer::Error),
    /// A folder that should be new has something in it.
    NotEmpty(#[from] NotEmpty),
    /// A syscall or an external program.
    Sys(#[from] sys::Error),
    /// A container.
    Run(#[from] run::Error),
    /// A command that was to give a program's exit code did not come that far.
    Launch(Box<Error>),
    /// Options that do not go together.
    Usage(#[from] super::run::Usage),
    /// Logging in or out.
    Login(#[from] super::login::Error),
    /// A store that is not whole.
    Broken(#[from] Broken),
    /// Why nothing is removed.
    Refusal(#[from] super::sweep::Refusal),
    /// A bundle.
    Bundle(#[from] bundle::Error),
    /// A Debian root.
    Debian(#[from] debian::Error),
    /// A filesystem image.
    Disk(#[from] disk::Error),
    /// A root filesystem that is written.
    Root(#[from] output::Error),
    /// The registry server.
    Serve(#[from] serve::Error),
    /// A recipe.
    Recipe(#[from] recipe::Error),
    /// The arguments of `build`.
    Build(#[from] super::build::Error),
    /// The arguments of `mkimg`.
    Mkimg(#[from] super::mkimg::Error),
    /// The arguments of `lock`.
    Lock(#[from] super::lock::Error),
    /// Checks of an image.
    Verify(#[from] crate::verify::Error),
    /// Standard output could not be written.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl Error {
    /// The kind of failure; it decides the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Oci(e) => e.kind(),
            Self::Registry(e) => e.kind(),
            Self::Transfer(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Archive(e) => e.kind(),
            Self::Analyze(e) => e.kind(),
            Self::Rootfs(e) => e.kind(),
            Self::Layer(e) => e.kind(),
            Self::Sys(e) => e.kind(),
            Self::Run(e) => e.kind(),
            Self::Launch(e) => e.kind(),
            Self::NotEmpty(_)
            | Self::Build(_)
            | Self::Usage(_)
            | Self::Refusal(_)
            | Self::Import(_)
            | Self::Export(_)
            | Self::Cp(_) => Kind::Input,
            Self::Back(e) => match e {
                super::back::Error::NoImage(_) => Kind::Unsupported,
                _ => Kind::Input,
            },
            Self::Login(e) => e.kind(),
            Self::Bundle(e) => e.kind(),
            Self::Debian(e) => e.kind(),
            Self::Disk(e) => e.kind(),
            Self::Root(e) => e.kind(),
            Self::Serve(e) => e.kind(),
            Self::Recipe(e) => e.kind(),
            Self::Mkimg(e) => e.kind(),
            Self::Lock(e) => e.kind(),
            Self::Verify(e) => e.kind(),
            Self::Broken(_) => Kind::Integrity,
            Self::Output(e) => Kind::of_io(e),
        }
    }

    /// The exit code: by kind, but 125 to 127 where a program's own was expected.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Launch(e) => match &**e {
                Self::Run(e) => e.launch_code(),
                _ => 125,
            },
            unread if unread.is_unread() => 141,
            other => other.kind().exit_code(),
        }
    }

    /// Whether nobody reads the output any more, as with `shipimg images | head -1`: an end
    /// that is not worth a message.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        let unread = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
        if let Self::Run(run::Error::Layer(e)) = self
            && let layer::Error::Output(e) = &**e
        {
            return unread(e);
        }
        let (Self::Output(e)
        | Self::Archive(archive::Error::Write { source: e, .. })
        | Self::Transfer(transfer::Error::Archive(archive::Error::Write { source: e, .. }))) = self
        else {
            return false;
        };
        unread(e)
    }

    /// The output of a failed program, shown below the error; empty for most.
    #[must_use]
    pub fn output(&self) -> &str {
        match self {
            Self::Debian(debian::Error::Configure { output, .. } | debian::Error::Hook { output, .. }) => {
                output
            }
            Self::Recipe(e) => e.output(),
            _ => "",
        }
    }

    /// A command that can be pasted and may help.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        if let Some(exceeded) = cause::<store::Exceeded>(self) {
            return Some(super::limits::hint(*exceeded));
        }
        match self {
            Self::Registry(e) | Self::Transfer(transfer::Error::Registry(e)) => registry_hint(e),
            Self::Transfer(transfer::Error::NoPlatform { name, available, .. }) => {
                available.first().map(|p| format!("shipimg pull --platform {p} {name}"))
            }
            Self::Transfer(transfer::Error::Foreign { name, .. }) => {
                Some(format!("shipimg pull --allow-foreign-layers {name}"))
            }
            Self::Launch(e) => e.hint(),
            Self::Lock(e) => e.hint(),
            Self::Layer(layer::Error::Make { source, .. })
            | Self::Rootfs(rootfs::Error::Layer(layer::Error::Make { source, .. }))
            | Self::Bundle(bundle::Error::Rootfs(rootfs::Error::Layer(layer::Error::Make {
                source, ..
            }))) => users_hint(source),
            Self::Bundle(bundle::Error::Rootfs(e)) | Self::Rootfs(e) => rootfs_hint(e),
            Self::Archive(archive::Error::Choose { archive, names, .. }) => {
                names.first().map(|name| format!("shipimg import {archive} {name}"))
            }
            Self::Import(super::import::Error::NoName { archive, .. }) => {
                Some(format!("shipimg import {archive} NAME"))
            }
            Self::Store(store::Error::Io { source, .. })
            | Self::Transfer(transfer::Error::Store(store::Error::Io { source, .. }))
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Some("shipimg df tells what the store takes, shipimg prune makes room".to_string())
            }
            Self::Store(store::Error::NoImage { name, .. }) => Some(format!("shipimg pull {name}")),
            Self::Broken(Broken { tried: true, name: Some(name), .. }) => {
                Some(format!("pull or import {name} again, or drop it: shipimg rmi {name}"))
            }
            Self::Broken(_) | Self::Store(store::Error::Verify(_)) => {
                Some("shipimg fsck --repair".to_string())
            }
            Self::Run(run::Error::NotStopped { id, .. } | run::Error::Damaged { id, .. }) => {
                Some(format!("shipimg delete --force {id}"))
            }
            Self::Run(run::Error::Sys(sys::Error::NoProgram { program })) => network_program_hint(program),
            Self::Run(run::Error::NotHandedDown { .. }) => {
                Some("systemd-run --user --scope shipimg run …".to_string())
            }
            Self::Run(run::Error::Sys(sys::Error::Program { command, .. }))
                if command.starts_with("pasta ") =>
            {
                Some("shipimg doctor".to_string())
            }
            Self::Debian(e) | Self::Recipe(recipe::Error::Debian(e)) => debian_hint(e),
            Self::Serve(serve::Error::Htpasswd { path, .. } | serve::Error::NoUsers(path)) => {
                Some(format!("htpasswd -B {} USER", path.display()))
            }
            Self::Sys(e) => users_hint(e),
            Self::Root(output::Error::Disk(disk::Error::NoBootLoader { .. })) => Some(
                "an image with Debian's systemd-boot-efi has it; of packages, --disk includes that"
                    .to_string(),
            ),
            _ => None,
        }
    }
}

/// For a network that lacks its program.
fn network_program_hint(program: &str) -> Option<String> {
    let package = match program {
        "pasta" => "passt",
        "nft" => "nftables",
        _ => return None,
    };
    Some(format!("sudo apt-get install {package}"))
}

/// For an ordinary user whose command does not get its user namespace.
fn users_hint(e: &sys::Error) -> Option<String> {
    use sys::userns::Forbids;
    let is_map = |text: &str| text.starts_with("newuidmap") || text.starts_with("newgidmap");
    Some(match e {
        sys::Error::NoSubIds { user, file } => {
            format!("echo {user}:100000:65536 | sudo tee -a {file}, with a range of its own, or --single-id")
        }
        sys::Error::NoUserNamespace { reason, .. } => match reason {
            Forbids::Limit => "sudo sysctl -w user.max_user_namespaces=15000".to_string(),
            Forbids::Clone => "sudo sysctl -w kernel.unprivileged_userns_clone=1".to_string(),
            Forbids::AppArmor => "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".to_string(),
            Forbids::Unknown => "shipimg doctor".to_string(),
        },
        sys::Error::NoProgram { program } if is_map(program) => {
            "sudo apt-get install uidmap, or --single-id".to_string()
        }
        sys::Error::Program { command, .. } if is_map(command) => {
            "shipimg doctor, or --single-id".to_string()
        }
        sys::Error::Syscall { call, errno: rustix::io::Errno::PERM }
            if ["unshare(", "fsopen("].iter().any(|start| call.starts_with(start)) =>
        {
            "in a container, docker run --privileged; shipimg doctor tells what works here".to_string()
        }
        sys::Error::Syscall { call, errno: rustix::io::Errno::INVAL } if call.contains("chown") => {
            "sudo usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST \"$USER\", with a range more"
                .to_string()
        }
        _ => return None,
    })
}

fn debian_hint(e: &debian::Error) -> Option<String> {
    use debian::Error as E;
    match e {
        E::NoKeyring { path } => {
            let name = path.file_name()?.to_string_lossy();
            let package = ["debian-archive-keyring", "ubuntu-archive-keyring"]
                .into_iter()
                .find(|k| name.starts_with(k))?;
            Some(format!("apt-get install {}", package.replace("ubuntu-archive", "ubuntu")))
        }
        E::NoSignedBy { .. } => {
            Some("--repo 'deb [signed-by=/usr/share/keyrings/ITS.gpg] URL SUITE COMPONENT'".to_string())
        }
        E::Foreign { .. } => Some("apt-get install qemu-user-static, or --foreign".to_string()),
        E::Expired { .. } => {
            Some("--ignore-valid-until, or --snapshot TIME for the state of that day".to_string())
        }
        _ => None,
    }
}

fn rootfs_hint(e: &rootfs::Error) -> Option<String> {
    match e {
        rootfs::Error::Unsupported { driver: rootfs::DriverKind::Btrfs, .. } => {
            Some("use --driver overlay, or keep the store and its bundles on btrfs: --root DIR".to_string())
        }
        rootfs::Error::Unsupported { driver: rootfs::DriverKind::Overlay, .. } => {
            Some("use --driver copy".to_string())
        }
        rootfs::Error::Sys(sys::Error::NoLoopDevice { .. }) => Some("modprobe loop".to_string()),
        rootfs::Error::RootMounts { .. } => {
            Some("run it by sudo, or from an image of the store: shipimg import FILES.tar NAME".to_string())
        }
        rootfs::Error::OtherIds(ids) => Some(match ids {
            sys::userns::Ids::Host => "run it by sudo".to_string(),
            sys::userns::Ids::Mapped => "leave out --single-id".to_string(),
            sys::userns::Ids::Single => "--single-id".to_string(),
        }),
        rootfs::Error::InUse { process, .. } => Some(format!("ps -fp {process}, and wait for its end")),
        rootfs::Error::NotAnImage(_) => Some("shipimg mkimg bookworm.img makes one".to_string()),
        _ => None,
    }
}

/// What references call the registry at `host`.
fn registry_name(host: &str) -> &str {
    if ["registry-1.docker.io", "auth.docker.io"].contains(&host) { "docker.io" } else { host }
}

fn registry_hint(e: &registry::Error) -> Option<String> {
    use registry::Error as E;
    match e {
        // That was a login.
        E::Unauthorized { host, repository, .. } if host == repository => None,
        E::Unauthorized { host, .. } => Some(format!("shipimg login {}", registry_name(host))),
        E::Untrusted { host, .. } => {
            Some(format!("cp its-ca.pem /etc/containers/certs.d/{host}/ca.crt, or --tls-verify=false"))
        }
        E::NoTls { .. } => Some("--tls-verify=false, or insecure = true in registries.conf".to_string()),
        E::WriteCredentials { .. } => {
            Some("shipimg login --authfile ~/.config/containers/auth.json REGISTRY".to_string())
        }
        E::NoRoots => Some("apt-get install ca-certificates".to_string()),
        E::NoImage { reference, .. } => {
            Some(format!("shipimg tags {}/{}", reference.registry(), reference.repository()))
        }
        E::NoRepository { registry, .. } => Some(format!("shipimg search {registry}/")),
        E::Helper { helper, .. } => Some(format!("echo HOST | docker-credential-{helper} get")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::userns::Forbids;

    #[test]
    fn each_refusal_of_a_user_namespace_has_a_remedy() {
        let program = |name: &str| sys::Error::NoProgram { program: name.to_string() };
        let forbidden = |reason| sys::Error::NoUserNamespace { call: String::new(), reason };
        for (error, remedy) in [
            (sys::Error::NoSubIds { user: "ann".into(), file: "/etc/subgid" }, "ann:100000:65536"),
            (program("newgidmap"), "apt-get install uidmap"),
            (forbidden(Forbids::Limit), "user.max_user_namespaces"),
            (forbidden(Forbids::Clone), "unprivileged_userns_clone"),
            (forbidden(Forbids::AppArmor), "apparmor_restrict_unprivileged_userns"),
            (forbidden(Forbids::Unknown), "doctor"),
        ] {
            let launch = Error::Launch(Box::new(error.into()));
            assert!(launch.hint().is_some_and(|h| h.contains(remedy)), "{remedy}");
        }
        assert_eq!(Error::from(program("mkfs.btrfs")).hint(), None);
        for (name, package) in [("pasta", "passt"), ("nft", "nftables")] {
            let launch = Error::Launch(Box::new(run::Error::from(program(name)).into()));
            assert_eq!(launch.hint(), Some(format!("sudo apt-get install {package}")));
        }
    }

    #[test]
    fn boot_loaders_come_with_a_package() {
        let path = crate::tree::TreePath::root();
        let error = Error::from(output::Error::from(disk::Error::NoBootLoader { path }));
        assert!(error.hint().is_some_and(|h| h.contains("systemd-boot-efi")));
    }

    #[test]
    fn keyrings_come_with_packages() {
        let hint = |path: &str| Error::from(debian::Error::NoKeyring { path: path.into() }).hint();
        let of = |package: &str| Some(format!("apt-get install {package}"));
        assert_eq!(hint("/usr/share/keyrings/debian-archive-keyring.gpg"), of("debian-archive-keyring"));
        assert_eq!(hint("/usr/share/keyrings/ubuntu-archive-keyring.gpg"), of("ubuntu-keyring"));
        assert_eq!(hint("/own.gpg"), None);
    }
}
