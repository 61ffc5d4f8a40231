"""What --device says, for commands that load no prior (which have the same rule)."""


def chosen_device(name: str) -> str:
    """The device, `auto` resolved. Raises `ValueError` for one that torch does not see here."""
    import torch

    count = torch.cuda.device_count()
    if name == "auto":
        return "cuda" if count else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name} is no device: give auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise ValueError(f"--device {name}: torch sees {count} GPU(s) here; give auto, cpu or one of them")
    return name
