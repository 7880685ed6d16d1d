"""The command that exports."""

from tutelage.cli.main import main
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network


def test_the_command_shows_each_file_beside_the_network(tmp_path, monkeypatch, capsys):
    student = load_network("tiny_cnn", num_classes=10, in_channels=1)
    monkeypatch.chdir(tmp_path)
    save_network("run", student, spec=student.spec, num_classes=10, in_channels=1)
    assert main(["export", "run", "--to", "pt2", "--data", "digits"]) == 0
    shown = capsys.readouterr().out
    assert "the network" in shown
    assert "model.pt2" in shown
    assert "100.00 %" in shown
    assert (tmp_path / "run" / "export" / "model.pt2").is_file()
