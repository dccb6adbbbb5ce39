//! An engine alone: how it starts and how it ends.

use headwater_tests::engine::{Engine, Options};

#[test]
fn an_engine_starts_on_free_ports_and_ends_in_order() {
    let engine = Engine::start(Options::default()).unwrap();
    assert_eq!(engine.endpoints().pid, engine.process().pid());
    assert!(engine.terminate().unwrap().success());
    assert!(!engine.data_dir().join("engine.json").exists());
}
