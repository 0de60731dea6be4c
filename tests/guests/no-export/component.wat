;; A component that exports nothing.
;;
;; Must come of it: refused at load, naming what it lacks.
(component)
