//! One owner writes, and knows what it finds.

use remora_agent::storage::{Error, JournalFilter, Options, Paging, Storage};

use super::{Place, everywhere, fill};

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_has_one_owner() {
    everywhere(async |place| {
        let storage = place.open().await;
        let second = Storage::open(place.options()).await.unwrap_err().to_string();
        let us = format!("is used by another process (process {}): stop it, or", std::process::id());
        assert!(second.contains(&us), "{second}");
        storage.close().await;
        place.open().await.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_start_at_once_do_not_collide() {
    let Some(place) = Place::postgres().await else { return };
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let open = |folder: usize| {
        let options =
            Options { database_url: place.options().database_url, ..Options::new(folders[folder].path()) };
        Storage::open(options)
    };
    let (a, b, c) = tokio::join!(open(0), open(1), open(2));
    let (owners, others): (Vec<_>, Vec<_>) = [a, b, c].into_iter().partition(Result::is_ok);
    assert_eq!(owners.len(), 1);
    for other in others {
        assert!(matches!(other, Err(Error::DatabaseInUse)), "{other:?}");
    }
    owners.into_iter().next().unwrap().unwrap().close().await;
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_database_is_refused_and_left_alone() {
    everywhere(async |place| {
        place.open().await.close().await;
        place.tamper("INSERT INTO schema_version (version) VALUES (99)").await;
        let refused = Storage::open(place.options()).await.unwrap_err().to_string();
        let versions =
            "the database has schema version 99, this program knows versions up to 4: use a newer program";
        assert_eq!(refused, versions);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_is_an_error() {
    everywhere(async |place| {
        let storage = place.open().await;
        fill(&storage.recorder(), 1).await;
        place.tamper("UPDATE journal SET kind = 'flown' WHERE sequence = 2").await;
        let unknown =
            "stored data is damaged: entry 2 is of kind \"flown\", which this program does not know";
        let page = storage.journal(JournalFilter::default(), &Paging::default()).await;
        assert_eq!(page.unwrap_err().to_string(), unknown);
        assert_eq!(storage.restore().await.unwrap_err().to_string(), unknown);
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_urls_and_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let with = |url: &str| {
        Storage::open(Options { database_url: Some(url.to_owned()), ..Options::new(folder.path()) })
    };
    let mysql = with("mysql://localhost/remora").await.unwrap_err().to_string();
    assert!(mysql.contains("want postgres://user:password@host/database"), "{mysql}");
    let nobody = with("postgres://postgres:secret@127.0.0.1:1/remora").await.unwrap_err().to_string();
    assert!(nobody.starts_with("the database fails: ") && !nobody.contains("secret"), "{nobody}");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = Storage::open(Options::new(file.join("data"))).await.unwrap_err();
    assert!(matches!(refused, Error::File { .. }), "{refused}");
}

/// Whatever characters a path has, the database lies there.
#[tokio::test(flavor = "multi_thread")]
async fn folders_may_have_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a b%41?c#d/Ü");
    Storage::open(Options::new(&odd)).await.unwrap().close().await;
    assert!(odd.join("remora.sqlite").is_file());
}
