"""PyTorch's time for one distillation step of a ViT on the CPU: forward, patch and CLS cosine, smooth L1, Gram, backward, clip, AdamW."""
import sys, time, torch, timm
depth, batch, threads, rounds = map(int, sys.argv[1:5])
torch.set_num_threads(threads)
torch.manual_seed(0)
m = timm.create_model("vit_small_patch14_dinov2", pretrained=False, img_size=224, depth=depth)
m.train()
opt = torch.optim.AdamW(m.parameters(), lr=1e-4, weight_decay=0.04)
x = torch.randn(batch, 3, 224, 224)
t = torch.randn(batch, 257, 384)
F = torch.nn.functional
def step():
    opt.zero_grad(set_to_none=True)
    y = m.forward_features(x)
    c = 1 - F.cosine_similarity(y[:, 0], t[:, 0], dim=-1).mean()
    p, q = y[:, 1:], t[:, 1:]
    loss = c + 0.9 * (1 - F.cosine_similarity(p, q, dim=-1)).mean() + 0.1 * F.smooth_l1_loss(p, q)
    pn, qn = F.normalize(p, dim=-1), F.normalize(q, dim=-1)
    loss = loss + ((pn @ pn.transpose(1, 2) - qn @ qn.transpose(1, 2)) ** 2).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
    opt.step()
for _ in range(2): step()
times = []
for _ in range(rounds):
    a = time.perf_counter(); step(); times.append(time.perf_counter() - a)
times.sort()
print(f"torch {torch.__version__}: {times[len(times)//2]:.3f} s median, {times[0]:.3f} least")
