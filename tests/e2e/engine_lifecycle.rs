//! Start and shutdown of an engine without a daemon.

use headwater_tests::engine::{Engine, Options, read_endpoints};

#[test]
fn engine_starts_on_free_ports_and_shuts_down_cleanly() {
    let engine = Engine::start(Options::default()).unwrap();
    assert_eq!(engine.endpoints().pid, engine.process().pid());
    assert!(engine.terminate().unwrap().success());
    assert!(!engine.data_dir().join("engine.json").exists());
}

#[test]
fn second_engine_in_the_same_data_folder_keeps_the_endpoints_file_of_the_first() {
    let engine = Engine::start(Options::default()).unwrap();
    let options = Options::with(|config| config.node.data_dir = engine.data_dir().to_owned());
    let (code, lines) = Engine::start_to_fail(options).unwrap();
    assert_eq!(code, Some(69), "{lines:?}");
    assert_eq!(read_endpoints(engine.data_dir()).unwrap(), *engine.endpoints());
}
