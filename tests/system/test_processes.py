import torch

from tutelage.system import processes


def test_a_process_alone_is_the_first_and_does_not_wait(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert processes.is_first()
    processes.wait()


def test_a_launcher_numbers_its_processes(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert processes.is_first()
    monkeypatch.setenv("RANK", "1")
    assert not processes.is_first()


def test_the_mean_of_a_process_alone_is_its_own_without_a_gradient():
    value = torch.tensor([1.0, 3.0], requires_grad=True)
    mean = processes.mean(value)
    assert torch.equal(mean, value)
    assert not mean.requires_grad
    assert processes.count() == 1


def test_the_mean_is_that_of_all_processes(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.add_(8.0))
    value = torch.tensor(1.0)
    assert processes.count() == 3
    assert processes.mean(value).item() == 3.0
    assert value.item() == 1.0
