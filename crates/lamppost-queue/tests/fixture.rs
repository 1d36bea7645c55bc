//! Spools that earlier versions wrote are read: the present format as a fixture.
//!
//! `LAMPPOST_WRITE_FIXTURE=1 cargo nextest run -p lamppost-queue --test fixture` writes the fixture
//! anew, for a new version of the format; fixtures of versions that are out stay as they are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use lamppost_disk::Disk;
use lamppost_roles::{ControlAnswer, ControlRequest, Verb};
use lamppost_sim::SimulatedDisk;
use support::{change, listed, restart, show, small, start, status, stored, submit, world};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spool-3")
}

#[tokio::test(start_paused = true)]
async fn a_spool_of_the_third_format_is_read() {
    if std::env::var_os("LAMPPOST_WRITE_FIXTURE").is_some() {
        write().await;
    }
    let (disk, folder) = world();
    disk.create_folder(&folder.path().join("log")).unwrap();
    let segments = ["log/0000000001.seg", "log/0000000002.seg", "log/0000000003.seg"];
    for name in ["checkpoint", "checkpoint.2"].into_iter().chain(segments) {
        let bytes = std::fs::read(fixture().join(name)).unwrap();
        let mut file = disk.create(&folder.path().join(name)).unwrap();
        file.write_at(0, &mut [IoSlice::new(&bytes)]).unwrap();
    }
    let around = start(&disk, folder.path(), small).await;
    let ids = listed(&around).await;
    assert_eq!(ids.len(), 2);
    assert_eq!(status(&around).await.damage, [""; 0]);
    for (id, (content, held)) in ids.into_iter().zip([("covered\n", true), ("replayed\n", false)]) {
        let read = ControlRequest::Read { id, offset: 0, length_max: 100 };
        let piece = around.control.ask(read).await.unwrap();
        assert_eq!(piece, ControlAnswer::Piece(content.into()));
        assert_eq!(show(&around, id).await.unwrap().held, held);
    }
}

/// A message that both checkpoints cover, one that must be replayed, and one that is deleted.
async fn write() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let covered = stored(&submit(&around, "held", "covered\n").await);
    change(&around, Verb::Hold, covered).await;
    let around = restart(around, &disk, folder.path(), small).await;
    let around = restart(around, &disk, folder.path(), small).await;
    let deleted = stored(&submit(&around, "demo", "deleted\n").await);
    change(&around, Verb::Delete, deleted).await;
    stored(&submit(&around, "demo", "replayed\n").await);
    keep(&disk.after_power_cut(), folder.path());
}

fn keep(disk: &SimulatedDisk, folder: &Path) {
    std::fs::create_dir_all(fixture().join("log")).unwrap();
    for path in disk.files("").into_iter().filter(|path| !path.to_string_lossy().contains("spare"))
    {
        let target = fixture().join(path.strip_prefix(folder).unwrap());
        std::fs::write(target, disk.world().file(&path).unwrap()).unwrap();
    }
}
