"""The CF source `file`, and the reading of tables it shares with the semantic encoder of that name."""

import io
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gensr.encoders.cf.config import CFFileConfig
from gensr.encoders.tables import hash_files, read_ids, read_vectors, rows_by_id, rows_in_order
from gensr.errors import BadInputError

LOG = sp.csr_matrix((np.ones(2), ([1, 2], [1, 3])), shape=(3, 5))  # 2 users, 4 items
USERS, ITEMS = ["", "u", "v"], ["", "a", "b", "c", "d"]
ROWS = np.arange(1, 13, dtype=np.float32).reshape(4, 3)


def put(path, rows=ROWS, **more):
    """Write rows into whatever kind of file the name says; more tensors beside it."""
    if path.suffix.lower() == ".npy":
        with path.open("wb") as file:
            np.save(file, rows)
        return str(path)
    tensors = {"items": torch.as_tensor(rows), **more}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


def lines(path, *names):
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return str(path)


def table(path, **options):
    return CFFileConfig(path=str(path), **options).table(LOG, user_ids=USERS, item_ids=ITEMS, seed=0)


def complaint(call, *args, **options):
    with pytest.raises(BadInputError) as caught:
        call(*args, **options)
    return str(caught.value)


# What a file becomes


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors", "x.pt", "x.pth", "x.pth.tar", "x.bin", "X.NPY"])
def test_rows_in_the_catalogues_order_follow_the_padding_row(tmp_path, name):
    found = table(put(tmp_path / name))
    assert found.items.dtype == torch.float32
    assert found.items.tolist() == [[0] * 3, *ROWS.tolist()]
    assert found.users.tolist() == [[0] * 3] * 3


def test_a_row_of_padding_in_the_file_is_written_as_zero(tmp_path):
    padded = np.concatenate([np.full((1, 3), 7, np.float32), ROWS])
    assert torch.equal(table(put(tmp_path / "a.npy", padded)).items, table(put(tmp_path / "b.npy")).items)


def test_a_row_aligned_file_needs_no_raw_ids(tmp_path):
    path = put(tmp_path / "a.npy")
    assert torch.equal(CFFileConfig(path=path).fit(LOG, seed=0).items, table(path).items)


def test_ids_put_the_rows_into_the_catalogues_order(tmp_path):
    ids = lines(tmp_path / "ids.txt", "d", "unknown", "b", "a", "c")
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    found = table(put(tmp_path / "x.npy", rows), ids=ids).items
    assert found.tolist() == [[0, 0], *rows[[3, 2, 4, 0]].tolist()]


@settings(max_examples=25, deadline=None)
@given(st.permutations(["a", "b", "c", "d", "x", "y"]), st.sets(st.sampled_from("abcd"), max_size=3))
def test_every_item_gets_the_row_its_id_stands_beside(order, absent):
    ids = [name for name in order if name not in absent]
    rows = np.array([[ord(name), 1] for name in ids], np.float32)
    found = rows_by_id(rows, ids, ITEMS, place="x", ids_place="ids", missing="zero")
    assert found.tolist() == [[0, 0]] + [[0, 0] if name in absent else [ord(name), 1] for name in ITEMS[1:]]


def test_users_come_from_a_table_of_their_own(tmp_path):
    path = put(tmp_path / "x.pt", users=torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
    assert table(path, key="items", user_key="users").users.tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    ids = lines(tmp_path / "ids.txt", "v", "u")
    assert table(path, key="items", user_key="users", user_ids=ids).users.tolist()[1:] == [[4, 5, 6], [1, 2, 3]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_numbers_of_any_kind_become_float32(tmp_path, dtype, name):
    path = put(tmp_path / name, torch.from_numpy(ROWS).to(dtype))
    assert table(path).items[1:].tolist() == ROWS.tolist()


def test_a_nested_checkpoint_is_reached_into_by_dots(tmp_path):
    state = {"item_embedding.weight": torch.from_numpy(ROWS), "bias": torch.zeros(3)}
    torch.save({"epoch": 3, "state_dict": state, "lr": [0.1]}, tmp_path / "x.pth")
    assert table(tmp_path / "x.pth", key="state_dict.item_embedding.weight").items[1:].tolist() == ROWS.tolist()
    assert table(tmp_path / "x.pth").items[1:].tolist() == ROWS.tolist()  # the only table in it


def test_a_checkpoint_may_be_a_bare_tensor_and_a_parameter(tmp_path):
    torch.save(torch.nn.Parameter(torch.from_numpy(ROWS)), tmp_path / "x.pt")
    found = table(tmp_path / "x.pt").items
    assert found[1:].tolist() == ROWS.tolist()
    assert not found.requires_grad


def test_a_npy_file_is_mapped_and_not_read_whole(tmp_path):
    assert isinstance(read_vectors(put(tmp_path / "x.npy")), np.memmap)


def test_ids_may_hold_spaces_and_end_without_a_newline(tmp_path):
    (tmp_path / "ids.txt").write_bytes("\ufeffa b\r\nç\u2028d\n e".encode())
    assert read_ids(str(tmp_path / "ids.txt")) == ["a b", "ç\u2028d", " e"]


# Identity


def test_the_identity_is_that_of_the_contents(tmp_path):
    path, ids = put(tmp_path / "x.npy"), lines(tmp_path / "ids.txt", *"abcd")
    config = CFFileConfig(path=path, ids=ids)
    before = config.identity()
    assert CFFileConfig(path=put(tmp_path / "copy.npy"), ids=ids).identity() == before
    assert CFFileConfig(path=path).identity() != before
    lines(tmp_path / "ids.txt", *"abdc")
    assert config.identity() != before
    assert hash_files(path, None) != hash_files(path)


# What may be wrong with it


def test_a_wrong_number_of_rows_says_what_was_expected(tmp_path):
    assert complaint(table, put(tmp_path / "x.npy", ROWS[:2])) == (
        f"{tmp_path}/x.npy has 2 rows, and there are 4 items: expected 4 rows in their order, or 5 with a row of "
        "padding in front. Where the order is another one, give a file of ids"
    )
    path = put(tmp_path / "x.pt", users=torch.ones(9, 3))
    assert f"{path} (users) has 9 rows, and there are 2 users" in complaint(table, path, key="items", user_key="users")


@pytest.mark.parametrize(
    ("rows", "got"),
    [
        (np.ones(4), "got float64 of shape [4]"),
        (np.ones((4, 3, 2)), "got float64 of shape [4, 3, 2]"),
        (np.ones((4, 0)), "got float64 of shape [4, 0]"),
        (np.ones((4, 3), bool), "got bool of shape [4, 3]"),
        (np.full((4, 3), "x"), "got <U1 of shape [4, 3]"),
        (np.ones((4, 3), complex), "got complex128 of shape [4, 3]"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(tmp_path, rows, got):
    text = complaint(table, put(tmp_path / "x.npy", rows))
    assert "is no table of vectors: expected numbers of shape [rows, width], " + got in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_in_float32_are_refused(tmp_path, bad):
    rows = ROWS.astype(np.float64)
    rows[2, 1] = bad
    text = complaint(table, put(tmp_path / "x.npy", rows))
    assert "holds NaN or infinity in the rows of 1 items, the first of them number 3" in text


def test_what_is_not_used_need_not_be_finite():
    rows = np.array([[1.0], [np.nan]])
    assert rows_by_id(rows, ["a", "x"], ["", "a"], place="x", ids_place="i").tolist() == [[0], [1]]
    assert rows_in_order(rows[::-1], 1, place="x").tolist() == [[0], [1]]  # the padding row


def test_ids_that_do_not_fit_the_rows_are_told(tmp_path):
    path = put(tmp_path / "x.npy")
    few = lines(tmp_path / "few.txt", "a", "b", "c")
    assert complaint(table, path, ids=few) == (f"{few} has 3 ids, and {path} 4 rows: expected one id for each row")
    twice = lines(tmp_path / "twice.txt", "a", "b", "a", "c")
    assert complaint(table, path, ids=twice).startswith(f"{twice}: the id 'a' stands on line 1 and on line 3; ")


def test_missing_ids_are_counted_and_named_or_zero_on_request(tmp_path):
    path, ids = put(tmp_path / "x.npy"), lines(tmp_path / "ids.txt", "a", "x", "y", "z")
    assert complaint(table, path, ids=ids) == (
        f"{ids} lacks 3 of 4 items: 'b', 'c', 'd'. Add them, or set `missing` to \"zero\""
    )
    found = table(path, ids=ids, missing="zero").items
    assert found[1].tolist() == ROWS[0].tolist()
    assert not found[2:].any()
    many = ["", "a", *map(str, range(999))]
    text = complaint(rows_by_id, ROWS, list("abcd"), many, place="x", ids_place="i")
    assert "i lacks 999 of 1,000 items: '0', '1', '2', '3', '4' and 994 more" in text


@pytest.mark.parametrize("missing", ["refuse", "zero"])
def test_ids_of_which_the_log_has_none_are_another_spelling_and_never_a_table_of_zeros(tmp_path, missing):
    path, ids = put(tmp_path / "x.npy"), lines(tmp_path / "ids.txt", *"ABCD")
    assert complaint(table, path, ids=ids, missing=missing) == (
        f"{ids} has none of the 4 items: it holds 'A', 'B', 'C', 'D', the log has 'a', 'b', 'c', 'd'. "
        "Expected raw ids spelled as in the log"
    )


def test_an_unknown_key_is_answered_with_the_nearest_and_all_tables(tmp_path):
    path = put(tmp_path / "x.safetensors", users=torch.ones(2, 3), bias=torch.ones(4))
    assert complaint(table, path, key="item") == (
        f"{path} holds no tensor named 'item'; did you mean 'items'? Tables in it: 'items', 'users'"
    )
    assert "holds 2 tables: say by `key` which. They are 'items', 'users'" in complaint(table, path)
    save_file({"bias": torch.ones(4)}, path)
    assert complaint(table, path) == f"{path} holds no table"
    assert "is no table of vectors" in complaint(table, path, key="bias")


def test_a_key_for_a_file_without_names_is_refused(tmp_path):
    assert "the key 'items' says nothing: leave it out" in complaint(table, put(tmp_path / "x.npy"), key="items")


def test_users_and_items_of_two_widths_are_refused(tmp_path):
    path = put(tmp_path / "x.pt", users=torch.ones(2, 5))
    assert "users (users) are 5 wide and items (items) 3: expected one width" in complaint(
        table, path, key="items", user_key="users"
    )


def test_ids_of_users_without_their_table_are_refused():
    with pytest.raises(ValueError, match="name that table by user_key"):
        CFFileConfig(path="x.npy", user_ids="ids.txt")


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_pickled_code_is_never_run(tmp_path, capsys):
    torch.save({"items": torch.ones(4, 3), "model": Payload()}, tmp_path / "x.pt")
    text = complaint(table, tmp_path / "x.pt")
    assert "x.pt holds more than tensors, a pickled 'print', and is not loaded, because pickles may run code" in text
    assert "torch.save(model.state_dict(), ...), or as .safetensors" in text
    np.save(tmp_path / "x.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    assert "it holds pickled objects, which may run code" in complaint(table, tmp_path / "x.npy")
    assert "code ran" not in capsys.readouterr().out


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", "b")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors", "x.pt", "x.pth.tar", "x.bin"])
@pytest.mark.parametrize("content", [b"", b"not a table at all, but a text of some length", archive(), None])
def test_an_unreadable_file_is_named_with_its_kind(tmp_path, name, content):
    path = tmp_path / name
    put(path)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    assert complaint(table, path).startswith(f"{path} cannot be read as a ")


def test_a_file_that_is_not_there_is_answered_with_its_neighbour(tmp_path):
    put(tmp_path / "items.npy")
    assert complaint(table, tmp_path / "item.npy") == f"{tmp_path}/item.npy does not exist; did you mean 'items.npy'?"
    assert complaint(CFFileConfig(path=str(tmp_path / "item.npy")).identity).endswith("did you mean 'items.npy'?")
    assert complaint(table, tmp_path) == f"{tmp_path} is a folder, not a file"
    assert "does not exist" in complaint(table, tmp_path / "no" / "folder.npy")


def test_an_unknown_suffix_is_answered_with_the_known_ones(tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n")
    assert complaint(table, tmp_path / "x.csv").endswith(
        "x.csv: a table of vectors is a file of .npy, .safetensors, .pt, .pth, .pth.tar, .bin"
    )


def test_ids_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe\x00")
    assert "ids.txt is no text file in UTF-8" in complaint(read_ids, str(tmp_path / "ids.txt"))


def test_a_matrix_alone_has_no_raw_ids(tmp_path):
    config = CFFileConfig(path=put(tmp_path / "x.npy"), ids=lines(tmp_path / "ids.txt", *"abcd"))
    assert "names items by raw id, and a matrix has none" in complaint(config.fit, LOG, seed=0)
