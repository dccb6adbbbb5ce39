//! Start and shutdown of an engine without a daemon.

use headwater_tests::engine::{Engine, Options};

#[test]
fn engine_starts_on_free_ports_and_shuts_down_cleanly() {
    let engine = Engine::start(Options::default()).unwrap();
    assert_eq!(engine.endpoints().pid, engine.process().pid());
    assert!(engine.terminate().unwrap().success());
    assert!(!engine.data_dir().join("engine.json").exists());
}
