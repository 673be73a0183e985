"""The registered networks in plain PyTorch, written from the published architectures.

An oracle for ours: nothing of the package is imported here. Modules carry the names of
torchvision (ResNets), of the Self-Distillation release (branches), of the DeiT release
and of timm's PiT, so their state dicts have the names that weight files have. `forward`
returns a dict with logits and features and, from a network with two heads in training,
soft_logits, from one with branches branch_logits and branch_features.
"""

import torch
from torch import nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Names of this library: there is no published one."""

    def __init__(self, classes, image_shape):
        super().__init__()
        height, width, channels = image_shape
        self.Dense_0 = nn.Linear(height * width * channels, 128)
        self.Dense_1 = nn.Linear(128, 128)
        self.Dense_2 = nn.Linear(128, classes)

    def forward(self, x):
        # Our images are [H, W, C]; the first layer sees them flattened in that order.
        x = x.permute(0, 2, 3, 1).flatten(1)
        x = F.relu(self.Dense_1(F.relu(self.Dense_0(x))))
        return {"logits": self.Dense_2(x), "features": x}


class SmallCNN(nn.Module):
    """Names of this library: there is no published one."""

    def __init__(self, classes, image_shape, branches=False):
        super().__init__()
        channels = image_shape[2]
        for place, width in enumerate((16, 32, 64)):
            stride = 1 if place == 0 else 2
            conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
            setattr(self, f"Conv_{place}", conv)
            setattr(self, f"BatchNorm_{place}", nn.BatchNorm2d(width))
            channels = width
        self.Dense_0 = nn.Linear(channels, classes)
        self.branches = branches
        if branches:
            self.branch1_align = nn.Linear(16, 64)
            self.branch1_head = nn.Linear(64, classes)
            self.branch2_align = nn.Linear(32, 64)
            self.branch2_head = nn.Linear(64, classes)

    def forward(self, x):
        x = F.relu(self.BatchNorm_0(self.Conv_0(x)))
        first = x.mean((2, 3))
        x = F.relu(self.BatchNorm_1(self.Conv_1(x)))
        second = x.mean((2, 3))
        x = F.relu(self.BatchNorm_2(self.Conv_2(x)))
        third = x.mean((2, 3))
        found = {"logits": self.Dense_0(third), "features": third}
        if self.branches:
            first = F.relu(self.branch1_align(first))
            second = F.relu(self.branch2_align(second))
            logits = [self.branch2_head(second), self.branch1_head(first)]
            found["branch_logits"] = torch.stack(logits, 1)
            found["branch_features"] = torch.stack([second, first], 1)
        return found


def shortcut(inputs, outputs, stride):
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(inputs, 4 * width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    """He et al. 2016; stride on the bottleneck's 3x3 as in torchvision."""

    def __init__(self, classes, block, blocks, width, large_stem=False):
        super().__init__()
        self.large_stem = large_stem
        if large_stem:
            self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages, inputs = len(blocks), width
        for stage, count in enumerate(blocks):
            layer, outputs = [], width * 2**stage
            for place in range(count):
                stride = 2 if stage > 0 and place == 0 else 1
                layer.append(block(inputs, outputs, stride))
                inputs = outputs * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.large_stem:
            x = F.max_pool2d(x, 3, 2, padding=1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return {"logits": self.fc(x), "features": x}


class SepConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        wide = {"kernel_size": 3, "padding": 1, "groups": inputs, "bias": False}
        self.op = nn.Sequential(
            nn.Conv2d(inputs, inputs, stride=2, **wide),
            nn.Conv2d(inputs, inputs, 1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, inputs, **wide),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, x):
        return self.op(x)


def bottleneck_branch(inputs, outputs, size):
    """The ICCV paper's, without the biases that BatchNorm takes away."""
    middle = outputs // 4
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, size, size, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class BranchedResNet(ResNet):
    """The journal's self-distillation network; fc4 is the deepest head."""

    def __init__(self, classes, block, blocks, width, bottleneck=False):
        super().__init__(classes, block, blocks, width)
        del self.fc
        last = 8 * width * block.expansion
        for k in (1, 2, 3):
            inputs = last // 2 ** (4 - k)
            setattr(self, f"fc{k}", nn.Linear(last, classes))
            if bottleneck:
                branch = bottleneck_branch(inputs, last, {1: 8, 2: 4, 3: 2}[k])
                setattr(self, f"scala{k}", branch)
                continue
            attention = nn.Sequential(
                SepConv(inputs, inputs),
                nn.BatchNorm2d(inputs),
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Sigmoid(),
            )
            setattr(self, f"attention{k}", attention)
            steps = (SepConv(last // 2**j, last // 2 ** (j - 1)) for j in (3, 2, 1))
            setattr(self, f"scala{k}", nn.Sequential(*list(steps)[k - 1 :]))
        self.fc4 = nn.Linear(last, classes)

    def forward(self, x):
        x, logits, features = F.relu(self.bn1(self.conv1(x))), [], []
        for k in (1, 2, 3, 4):
            x = seen = getattr(self, f"layer{k}")(x)
            if k < 4:
                if hasattr(self, f"attention{k}"):
                    seen = getattr(self, f"attention{k}")(x) * x
                seen = getattr(self, f"scala{k}")(seen)
            features.insert(0, F.adaptive_avg_pool2d(seen, 1).flatten(1))
            logits.insert(0, getattr(self, f"fc{k}")(features[0]))
        return {
            "logits": logits[0],
            "features": features[0],
            "branch_logits": torch.stack(logits[1:], 1),
            "branch_features": torch.stack(features[1:], 1),
        }


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class MlpOfBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Without DropPath, which a comparison of numbers cannot have."""

    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MlpOfBlock(dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchProjection(nn.Module):
    """DeiT calls the convolution of its patch embedding `proj`."""

    def __init__(self, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class TokenBranches(nn.Module):
    """Heads on the class token after blocks 1 to 11; our names, there is no release."""

    def add_branches(self, classes, widths):
        for k, width in enumerate(widths[:-1], 1):
            setattr(self, f"branch{k}_norm", nn.LayerNorm(width, eps=1e-6))
            setattr(self, f"branch{k}_align", nn.Linear(width, widths[-1]))
            setattr(self, f"branch{k}_head", nn.Linear(widths[-1], classes))

    def answers(self, logits, features, tokens):
        """Return the outputs; `tokens` are those after blocks 1 to 12."""
        found = {"logits": logits, "features": features}
        if hasattr(self, "branch1_head"):
            logits, features = [], []
            for k in range(11, 0, -1):
                x = getattr(self, f"branch{k}_norm")(tokens[k - 1])
                features.append(getattr(self, f"branch{k}_align")(x))
                logits.append(getattr(self, f"branch{k}_head")(features[-1]))
            found["branch_logits"] = torch.stack(logits, 1)
            found["branch_features"] = torch.stack(features, 1)
        return found


class DeiT(TokenBranches):
    """Touvron et al. 2021, tiny: 12 blocks of width 192 with 3 heads."""

    def __init__(self, classes, image_shape, patch, distilled, branches):
        super().__init__()
        tokens = 1 + distilled
        count = (image_shape[0] // patch) * (image_shape[1] // patch)
        self.patch_embed = PatchProjection(192, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 192))
        if distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, 192))
            self.head_dist = nn.Linear(192, classes)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + count, 192))
        self.blocks = nn.Sequential(*(Block(192, 3) for _ in range(12)))
        self.norm = nn.LayerNorm(192, eps=1e-6)
        self.head = nn.Linear(192, classes)
        self.distilled = distilled
        if branches:
            self.add_branches(classes, [192] * 12)

    def forward(self, x):
        x = self.patch_embed(x)
        tokens = (
            [self.cls_token, self.dist_token] if self.distilled else [self.cls_token]
        )
        tokens = [token.expand(len(x), -1, -1) for token in tokens]
        x, tokens = torch.cat([*tokens, x], 1) + self.pos_embed, []
        for block in self.blocks:
            x = block(x)
            tokens.append(x[:, 0])
        x = self.norm(x)
        logits, features = self.head(x[:, 0]), x[:, 0]
        if not self.distilled:
            return self.answers(logits, features, tokens)
        soft = self.head_dist(x[:, 1])
        if self.training:
            return {"logits": logits, "features": features, "soft_logits": soft}
        return {"logits": (logits + soft) / 2, "features": features}


class ConvEmbedding(nn.Module):
    """PiT calls the convolution of its patch embedding `conv`."""

    def __init__(self, dim, patch):
        super().__init__()
        self.conv = nn.Conv2d(3, dim, patch, patch // 2)

    def forward(self, x):
        return self.conv(x)


class Pool(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv2d(dim, 2 * dim, 3, 2, padding=1, groups=dim)
        self.fc = nn.Linear(dim, 2 * dim)


class Transformer(nn.Module):
    """One stage; pooling comes first, as timm has it."""

    def __init__(self, dim, depth, heads, pooled):
        super().__init__()
        if pooled:
            self.pool = Pool(dim // 2)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))

    def forward(self, grid, token, tokens):
        if hasattr(self, "pool"):
            grid, token = self.pool.conv(grid), self.pool.fc(token)
        x = torch.cat([token, grid.flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            x = block(x)
            tokens.append(x[:, 0])
        return x[:, 1:].transpose(1, 2).unflatten(2, grid.shape[2:]), x[:, :1]


class PiT(TokenBranches):
    """Heo et al. 2021, tiny: depths 2, 6, 4, widths 64, 128, 256, heads 2, 4, 8."""

    def __init__(self, classes, image_shape, patch, branches):
        super().__init__()
        stride = patch // 2
        rows, columns = ((side - patch) // stride + 1 for side in image_shape[:2])
        self.patch_embed = ConvEmbedding(64, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, 64, rows, columns))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 64))
        stages = ((64, 2, 2), (128, 6, 4), (256, 4, 8))
        self.transformers = nn.ModuleList(
            Transformer(*sizes, pooled=place > 0) for place, sizes in enumerate(stages)
        )
        self.norm = nn.LayerNorm(256, eps=1e-6)
        self.head = nn.Linear(256, classes)
        if branches:
            self.add_branches(classes, [64] * 2 + [128] * 6 + [256] * 4)

    def forward(self, x):
        grid = self.patch_embed(x) + self.pos_embed
        token, tokens = self.cls_token.expand(len(x), -1, -1), []
        for stage in self.transformers:
            grid, token = stage(grid, token, tokens)
        features = self.norm(token)[:, 0]
        return self.answers(self.head(features), features, tokens)


FOUR_STAGES = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
THREE_STAGES = {f"resnet{depth}": (depth - 2) // 6 for depth in (8, 20, 32, 56, 110)}


def build(name, classes, image_shape, arch):
    """Return a network by our name; `arch` holds what differs from the defaults."""
    if name == "mlp":
        return MLP(classes, image_shape)
    branches = name.endswith("_branches")
    if name.startswith("small_cnn"):
        return SmallCNN(classes, image_shape, branches)
    if name in THREE_STAGES:
        return ResNet(classes, BasicBlock, (THREE_STAGES[name],) * 3, 16)
    if name in FOUR_STAGES:
        width = int(64 * arch.get("param_factor", 1) ** 0.5)
        large_stem = arch.get("stem") == "imagenet"
        return ResNet(classes, *FOUR_STAGES[name], width, large_stem)
    if branches and name.startswith("resnet"):
        sizes = FOUR_STAGES[name.removesuffix("_branches")]
        bottleneck = arch.get("branch") == "bottleneck"
        return BranchedResNet(classes, *sizes, 64, bottleneck)
    patch = arch.get("patch_size", 16)
    if name.startswith("deit_tiny"):
        distilled = name.endswith("distilled")
        return DeiT(classes, image_shape, patch, distilled, branches)
    assert name.startswith("pit_tiny"), name
    return PiT(classes, image_shape, patch, branches)
