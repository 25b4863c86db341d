"""A stand-in for the files that the tutorials read, for whoever has none at hand.

``work/pets.pth`` is a Vim-Ti of 37 classes at 192 pixels in the layout of the official training
script, with seeded weights that were never trained; ``work/pets.txt`` has the names of its classes,
``work/photos`` twelve drawn pictures. What is there already is left as it is.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.seeding import seed_weights
from vim_deploy.recipe.catalog import find_variant

checkpoint, labels, photos = Path("work/pets.pth"), Path("work/pets.txt"), Path("work/photos")
BREEDS = """Abyssinian, American Bulldog, American Pit Bull Terrier, Basset Hound, Beagle, Bengal,
Birman, Bombay, Boxer, British Shorthair, Chihuahua, Egyptian Mau, English Cocker Spaniel,
English Setter, German Shorthaired, Great Pyrenees, Havanese, Japanese Chin, Keeshond, Leonberger,
Maine Coon, Miniature Pinscher, Newfoundland, Persian, Pomeranian, Pug, Ragdoll, Russian Blue,
Saint Bernard, Samoyed, Scottish Terrier, Shiba Inu, Siamese, Sphynx, Staffordshire Bull Terrier,
Wheaten Terrier, Yorkshire Terrier"""
breeds = [name.strip() for name in BREEDS.split(",")]

checkpoint.parent.mkdir(exist_ok=True)
if not labels.exists():
    labels.write_text("\n".join(breeds) + "\n", encoding="utf-8")
if not checkpoint.exists():
    model = VisionMamba(find_variant("vim-tiny").replace(img_size=192, num_classes=len(breeds)))
    seed_weights(model, 0)
    args = Namespace(
        model="vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2",
        input_size=192,
        nb_classes=len(breeds),
        eval_crop_ratio=0.875,
    )
    torch.save({"model": model.state_dict(), "epoch": 29, "args": args}, checkpoint)
if not photos.exists():
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        picture = Image.new("RGB", (320, 240), tuple(random.integers(0, 256, 3).tolist()))
        for _ in range(6):
            x, y, width, height = random.integers((0, 0, 40, 40), (240, 160, 200, 160)).tolist()
            colour = tuple(random.integers(0, 256, 3).tolist())
            ImageDraw.Draw(picture).ellipse((x, y, x + width, y + height), fill=colour)
        picture.save(photos / f"{number:02}.png")
