from tutelage import processes


def test_a_process_alone_is_the_first_and_does_not_wait(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert processes.is_first()
    processes.wait()


def test_a_launcher_numbers_its_processes(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert processes.is_first()
    monkeypatch.setenv("RANK", "1")
    assert not processes.is_first()
